"""From the bytes of a request to a checked body, with OpenAI's words for what is wrong.

The body is checked where it is parsed, in one pass of pydantic's core: FastAPI's own way, through Python objects and
the machinery of dependencies, costs a request of a small model a notable share of its time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from conch.errors import nearest
from gateway.errors import GatewayError
from gateway.request_info import whole_body

# Faults are found in one go, and of more than these none is told: only a body that is none of ours has so many.
_MOST_FAULTS = 100

AnyBody = TypeVar("AnyBody", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


async def read_body(request: Request, kind: type[AnyBody]) -> AnyBody:
    """The request's body. Raises: GatewayError 400, naming the field."""
    raw = await whole_body(request)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise _refused(error, kind) from None


def post_route(router: APIRouter, path: str, handler: Handler, body: type[BaseModel]) -> None:
    """Send a path's requests to a handler that reads its body itself, and document it.

    The first route answers, without FastAPI's dependencies; the second is there for /openapi.json alone.
    """
    router.add_route(path, handler, methods=["POST"], include_in_schema=False)
    router.add_api_route(path, handler, methods=["POST"], response_model=None, openapi_extra=openapi_body(body))


def openapi_body(kind: type[BaseModel]) -> dict[str, Any]:
    """What /openapi.json says of the body that a handler reads for itself."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, definitions)}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema whose references are replaced by what they name; no body refers to itself."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in node.items()}
    return [_inlined(value, definitions) for value in node] if isinstance(node, list) else node


def _refused(error: ValidationError, kind: type[BaseModel]) -> GatewayError:
    if error.error_count() > _MOST_FAULTS:
        return GatewayError("the body of the request has too many faults to name", got=error.error_count())
    # Of a union's branches, that which came furthest says best what is wrong.
    faults = error.errors(include_url=False, include_context=False)
    fault = max(faults, key=lambda each: (each["type"] == "too_long", len(_path(each["loc"]))))
    path = _path(fault["loc"])
    if fault["type"] == "json_invalid":
        return GatewayError(f"the body of the request is not JSON: {fault['msg']}", status=400)
    if fault["type"] == "extra_forbidden":
        close = nearest(path, kind.model_fields)
        return GatewayError(
            f"Unrecognized request argument supplied: {path}",
            status=400,
            code="unknown_parameter",
            param=path,
            fix=f"did you mean {close}?" if close else None,
        )
    if fault["type"] == "missing":
        what = f"Missing required parameter: '{path}'"
        return GatewayError(what, status=400, code="missing_required_parameter", param=path)
    branches = {each["msg"] for each in faults if _path(each["loc"]) == path}
    what = f"Invalid value for '{path}': {' or '.join(sorted(branches))}" if path else f"the body: {fault['msg']}"
    got = fault["input"]
    shown = f"{got!r:.80}" if isinstance(got, str | int | float | bool | None) else type(got).__name__
    return GatewayError(what, status=400, code="invalid_value", param=path or None, got=shown)


def _path(loc: Sequence[str | int]) -> str:
    """``messages[0].content`` of a location; pydantic puts the names of a union's branches between, which are ours."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part.islower() and part not in ("str", "int", "float", "bool", "schema_"):
            path += f".{part}" if path else part
        elif not path:
            path = part
    return path
