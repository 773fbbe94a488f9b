"""Bodies as JSON: read strictly, written compactly; what is none is refused, with the place where it stops being so."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from gateway.errors import GatewayError


class _NotJson(ValueError):
    """NaN or an infinity, which Python reads and JSON does not have."""


def _constant(name: str) -> Any:
    raise _NotJson(name)


# One for all requests: json.loads would make a new one for each.
_DECODER = json.JSONDecoder(parse_constant=_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

MAX_DEPTH = 100
_TOO_DEEP = "lists or objects nested too deep"

# Escapes of surrogates, which stand for one character in pairs, and for none alone.
_SURROGATES = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(body: bytes) -> Any:
    """The document. Raises: GatewayError 400 for what is not UTF-8, or no JSON."""
    try:
        document = _DECODER.decode(body.decode("utf-8"))
        if _SURROGATES.search(body):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except _NotJson as error:
        raise GatewayError(
            "the body is no JSON", got=str(error), expected="finite numbers", fix="fill missing values first"
        ) from error
    except UnicodeDecodeError as error:
        got = f"byte 0x{body[error.start]:02x} at position {error.start}"
        raise GatewayError("the body is not UTF-8", got=got, expected="JSON in UTF-8") from error
    except UnicodeEncodeError as error:
        raise GatewayError("the body is no valid Unicode", got="half of a surrogate pair", expected="text") from error
    except json.JSONDecodeError as error:
        got = f"{error.msg} at line {error.lineno}, column {error.colno}" if body.strip() else "an empty body"
        raise GatewayError("the body is no JSON", got=got, expected="a JSON object") from error
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits; lists in lists in lists
        got = _TOO_DEEP if isinstance(error, RecursionError) else "a number with too many digits"
        raise GatewayError("the body cannot be read", got=got, expected="a JSON object") from error


def read_object(body: bytes) -> dict[str, Any]:
    """The document, which has to be an object. Raises: GatewayError 400."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise GatewayError("the body is no JSON object", got=kind_of(document), expected='{"name": value, ...}')
    return document


def check_depth(document: Any) -> None:
    """Raise GatewayError for what is nested deeper than MAX_DEPTH: who walks through it may not come back."""
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise GatewayError("the body cannot be read", got=_TOO_DEEP, expected=f"at most {MAX_DEPTH} levels")


def json_text(document: Any) -> str:
    """Compact JSON; NaN and infinities become null, as JSON has none."""
    try:
        return _ENCODER.encode(document)
    except ValueError:
        return _ENCODER.encode(_finite(document))


def write_json(document: Any) -> bytes:
    """`json_text` as the bytes of a body."""
    return json_text(document).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def kind_of(value: Any) -> str:
    """What a JSON value is, and its beginning, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    name = names.get(type(value), "a number")
    return name if value is None or isinstance(value, dict | list) else f"{name}: {value!r:.60}"
