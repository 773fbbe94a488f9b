"""POST /predict/{model}: a row of plain values in, the model's outputs by name out. /predict/{model}/batch: many rows.

A row's values are JSON by input name, or form data with files. The paths that /openapi.json shows are one a model, made
from its signature in gateway/rest/schemas.py. These are plain routes: nothing is parsed twice, no model is validated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from clients.replies import Answer
from gateway.caller import Caller, admitted, gateway_of
from gateway.catalogue import ServedModel
from gateway.errors import GatewayError
from gateway.request_info import RequestInfo, request_info, whole_body
from gateway.rest.headers import answered_by
from gateway.rest.json_body import kind_of, read_object
from gateway.rest.rows import MAX_ROWS, Chunk, answer_rows, chunks, one_row
from gateway.rest.upload import form_rows, is_form

router = APIRouter()

# Requests of one batch that are in flight at a time: enough to keep a few instances busy, and to leave room for others.
BATCH_IN_FLIGHT = 4


async def predict(request: Request) -> Response:
    """Answer one row."""
    caller, info, model = await _asked(request)
    if is_form(request):
        rows = await form_rows(request, model.signature, gateway_of(request).settings.body_bytes)
        if len(rows) > 1:
            fix = f"POST /predict/{model.name}/batch"
            raise GatewayError("the form holds more than one row", got=f"{len(rows)} rows", expected="one", fix=fix)
        row = rows[0] if rows else {}
    else:
        row = read_object(await whole_body(request))
    inputs = one_row(model.signature, row)
    answer = await gateway_of(request).door.infer(caller, request.path_params["model"], inputs, request=info)
    return _response(answer_rows(model.signature, answer, 1)[0], [answer])


async def predict_batch(request: Request) -> Response:
    """Answer many rows, in their order; all of them, or none."""
    caller, info, model = await _asked(request)
    if is_form(request):
        rows: Any = await form_rows(request, model.signature, gateway_of(request).settings.body_bytes)
        if not rows:
            raise GatewayError("the form is empty", got="no fields", expected="one field an input and row")
    else:
        rows = _rows(read_object(await whole_body(request)))
    answered, answers = await _ask_all(request, caller, info, model, chunks(model.signature, rows))
    return _response(f'{{"rows":[{",".join(answered)}]}}', answers)


async def _asked(request: Request) -> tuple[Caller, RequestInfo, ServedModel]:
    """Who asks what. Raises: GatewayError 401, 403, 404, 503; 400 for a model that is no matter of rows."""
    caller, info = await admitted(request), await request_info(request)
    model = await gateway_of(request).door.model(caller, request.path_params["model"], request=info)
    if model.kind == "generate" or model.decoupled:
        fix = "POST /generate, /stream or /v1/chat/completions" if model.kind == "generate" else "ask it over gRPC"
        raise GatewayError(f"model {model.name} answers in streams, not in rows", param="model", fix=fix)
    return caller, info, model


def _rows(document: dict[str, Any]) -> list[Any]:
    """The rows of a batch's body. Raises: GatewayError 400."""
    expected = '{"rows": [{"input": value, ...}, ...]}'
    rows = document.get("rows")
    if not isinstance(rows, list) or not rows:
        got = "an empty list" if rows == [] else kind_of(rows) if "rows" in document else "no rows"
        raise GatewayError("a batch is a list of rows", param="rows", got=got, expected=expected)
    if len(rows) > MAX_ROWS:
        got, fix = f"{len(rows)} rows", "send them as several batches"
        raise GatewayError("the batch is too large", param="rows", got=got, expected=f"at most {MAX_ROWS}", fix=fix)
    other = [name for name in document if name != "rows"]
    if other:
        raise GatewayError(f"a batch has no field {other[0][:80]}", param=other[0][:80], expected=expected)
    return rows


async def _ask_all(
    request: Request, caller: Caller, info: RequestInfo, model: ServedModel, asked: Sequence[Chunk]
) -> tuple[list[str], list[Answer]]:
    """The answered rows in their order, as JSON, and who answered; the first failure ends what is still to be asked."""
    gateway, name = gateway_of(request), request.path_params["model"]
    rows = [""] * sum(len(chunk.places) for chunk in asked)
    answers: list[Answer] = []
    waiting = iter(asked)

    async def ask_on() -> None:
        for chunk in waiting:
            answer = await gateway.door.infer(caller, name, chunk.inputs, request=info)
            answers.append(answer)
            # Written here, request by request: other callers are served in between.
            for place, row in zip(chunk.places, answer_rows(model.signature, answer, len(chunk.places)), strict=True):
                rows[place] = row

    # A batch does not stand in its own way: it takes no more places than the model has.
    at_once = max(1, min(BATCH_IN_FLIGHT, gateway.settings.queue_limit_of(model.name), len(asked)))
    tasks = [asyncio.ensure_future(ask_on()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return rows, answers


def _response(document: str, answers: Sequence[Answer]) -> Response:
    """JSON, with who answered in the headers; an update may fall between the requests of a batch."""
    versions = dict.fromkeys(answer.version for answer in answers)
    headers = answered_by(answers[0].model, ", ".join(versions))
    return Response(document, headers=headers, media_type="application/json")


router.add_route("/predict/{model}", predict, methods=["POST"], include_in_schema=False)
router.add_route("/predict/{model}/batch", predict_batch, methods=["POST"], include_in_schema=False)
