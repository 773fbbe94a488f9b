"""What a text is held to, checked before the engine sees it: a bad grammar fails in the engine's step, for everyone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
from generate_refusal import invalid

# Deeper ones end in Python's limit of recursion, and take the engine many seconds.
MAX_DEPTH = 64


def check_schema(name: str, schema: dict[str, Any]) -> None:
    """Raise Refused for a schema that is none by its own standard, or has references or patterns that lead nowhere."""
    if _is_deeper(schema, MAX_DEPTH):
        raise invalid(name, f"more than {MAX_DEPTH} levels", "a schema that is nested less deeply")
    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "schema"
        raise invalid(f"{name}: {where}", error.instance, f"a JSON schema: {error.message}") from error
    for key, value in _entries(schema):
        if key == "$ref" and isinstance(value, str) and not _leads_somewhere(schema, value):
            raise invalid(f"{name}: $ref", value, "a reference into the schema itself, as #/$defs/NAME")
        if key == "pattern" and isinstance(value, str):
            check_regex(f"{name}: pattern", value)


def check_regex(name: str, pattern: str) -> None:
    """Raise Refused for what is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise invalid(name, pattern, f"a regular expression: {error}") from error


def _is_deeper(node: Any, depth: int) -> bool:
    """Whether lists and objects are nested deeper; level by level, as recursion would not come back."""
    level = [node]
    for _ in range(depth + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
    return bool(level)


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values, however deep."""
    if isinstance(node, dict):
        yield from node.items()
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _entries(value)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    if not reference.startswith("#"):
        return False
    for part in reference[1:].strip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if name and not (isinstance(schema, dict) and name in schema):
            return False
        schema = schema[name] if name else schema
    return True
