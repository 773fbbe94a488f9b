"""POST /v1/rerank: documents in the order of their relevance to a query, as Cohere and Jina shape it.

For any model with `text`, `text_pair` STRING [1] -> `score` FP32 [1]. One answer serves clients of both: Jina's read
``results`` and ``usage``, Cohere's ``results`` and ``meta``. Cohere's second version has its path at /v2/rerank.

Source: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.caller import admitted, gateway_of
from gateway.openai_api.batches import ask_in_batches
from gateway.openai_api.bodies import RerankBody, RerankDocument
from gateway.openai_api.reading import post_route, read_body
from gateway.openai_api.sampling import invalid
from gateway.openai_api.served import require_kind
from gateway.openai_api.vocabulary import count_tokens
from gateway.request_info import request_info

# Cohere bills searches of up to so many documents.
DOCUMENTS_A_SEARCH_UNIT = 100

router = APIRouter(tags=["openai"])


async def rerank(request: Request) -> Response:
    """Order documents by their relevance to a query."""
    caller = await admitted(request)
    info = await request_info(request)
    body = await read_body(request, RerankBody)
    texts = _texts(body)
    gateway = gateway_of(request)
    served = await gateway.door.model(caller, body.model, request=info)
    require_kind(served, "rerank", "/v1/rerank")
    query = body.query.encode("utf-8")
    pairs = {"text": [query] * len(texts), "text_pair": [text.encode("utf-8") for text in texts]}
    scores = await ask_in_batches(gateway.door, caller, body.model, served, pairs, "score", info)
    tokens = await count_tokens([(body.query, text) for text in texts], served, gateway.settings.repository)
    info.record.input_tokens += tokens
    gateway.door.charge_soon(caller, body.model, input_tokens=tokens)
    document = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": body.model,
        "results": _results(body, texts, scores.reshape(-1).tolist()),
        "meta": {
            "api_version": {"version": "2" if request.url.path.startswith("/v2") else "1"},
            "billed_units": {"search_units": -(-len(texts) // DOCUMENTS_A_SEARCH_UNIT)},
        },
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(json.dumps(document, separators=(",", ":")), media_type="application/json")


def _results(body: RerankBody, texts: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
    """The best first; of equals, the one that was sent first."""
    order = np.argsort(-np.asarray(scores), kind="stable")[: body.top_n]
    results: list[dict[str, Any]] = [{"index": int(i), "relevance_score": scores[i]} for i in order]
    if body.return_documents:
        for result in results:
            given = body.documents[result["index"]]
            result["document"] = given.model_dump() if isinstance(given, RerankDocument) else {"text": given}
    return results


def _texts(body: RerankBody) -> list[str]:
    """What of each document counts. Raises: GatewayError 400 when it is no text."""
    return [
        document if isinstance(document, str) else _text(document, body.rank_fields or ["text"], place)
        for place, document in enumerate(body.documents)
    ]


def _text(document: RerankDocument, fields: Sequence[str], place: int) -> str:
    given = document.model_extra or {}
    if not any(field in given for field in fields):
        raise invalid(f"documents[{place}]", f"documents[{place}] has no field {' or '.join(fields)}"[:200])
    values = [given[field] for field in fields if field in given]
    return "\n".join(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)


post_route(router, "/v1/rerank", rerank, RerankBody)
router.add_route("/v2/rerank", rerank, methods=["POST"], include_in_schema=False)
router.add_route("/rerank", rerank, methods=["POST"], include_in_schema=False)
