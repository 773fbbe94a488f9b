"""Rows from form data: files as they are, other values as text. A field that is there several times: several rows."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from conch.tensor_spec import ModelSignature
from gateway.errors import GatewayError

CONTENT_TYPE = "multipart/form-data"


def is_form(request: Request) -> bool:
    """Whether the body is form data with files."""
    return request.headers.get("content-type", "").lower().startswith(CONTENT_TYPE)


async def form_rows(request: Request, signature: ModelSignature, body_bytes: int) -> list[dict[str, Any]]:
    """The fields as rows. Raises: GatewayError 400; HTTPException 400 when the form is broken."""
    text_inputs = {spec.name for spec in signature.inputs if spec.datatype == "BYTES"}
    fields: dict[str, list[Any]] = {}
    async with request.form(max_part_size=body_bytes) as form:
        for name, value in form.multi_items():
            if not isinstance(value, str):
                given: Any = await value.read() if name in text_inputs else f"file {value.filename}"
            else:
                given = value if name in text_inputs else _parsed(value)
            fields.setdefault(name, []).append(given)
    counts = {name: len(values) for name, values in fields.items()}
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise GatewayError("the form's fields differ in number", got=got, expected="one of each for every row")
    return [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]


def _parsed(text: str) -> Any:
    """A number, a boolean or a list, as JSON writes it; text that is none stays, and is refused with its place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
