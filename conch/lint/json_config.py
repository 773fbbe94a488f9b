"""A model config as JSON, as a load call takes it: told from other JSON, and held to protobuf's way to write maps.

Source: https://protobuf.dev/programming-guides/json/ and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from conch.model_config import ModelConfig

_FIELDS = {name for field in ModelConfig.DESCRIPTOR.fields for name in (field.name, field.json_name)}


def read_json(text: str | None) -> Any:
    """A JSON text's value; None when it is none."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def config_in(document: Any) -> Mapping[str, Any] | None:
    """The config that a JSON document is, or carries as the body of a load call; None when it is another thing."""
    if not isinstance(document, dict):
        return None
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and isinstance(parameters.get("config"), str | dict):
        inner = parameters["config"]
        if isinstance(inner, dict) and "string_value" in inner:
            return document if _looks_like_config(document) else None
        return config_in(read_json(inner) if isinstance(inner, str) else inner)
    return document if _looks_like_config(document) else None


def _looks_like_config(document: Mapping[str, Any]) -> bool:
    return bool(document) and document.keys() <= _FIELDS


def wrong_maps(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields that are written as in config.pbtxt: where, what stands there, and what is due."""
    return _wrong_maps(config, ModelConfig.DESCRIPTOR, "")


def _wrong_maps(value: Mapping[str, Any], descriptor: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    for field in descriptor.fields:
        for name in dict.fromkeys((field.name, field.json_name)):
            inner = value.get(name)
            place = f"{path}{name}"
            if inner is None or field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                due = _as_object(inner, field.message_type)
                if due is not None and due != inner:
                    yield place, inner, due
                continue
            children = inner if isinstance(inner, list) else [inner]
            for child in children:
                if isinstance(child, dict):
                    yield from _wrong_maps(child, field.message_type, f"{place}.")


def _as_object(value: Any, entry: Any) -> dict[str, Any] | None:
    """A map as JSON has it; None when that cannot be told from what stands there."""
    if isinstance(value, list):
        if not all(isinstance(v, dict) and {"key"} <= v.keys() <= {"key", "value"} for v in value):
            return None
        value = {str(v["key"]): v.get("value") for v in value}
    if not isinstance(value, dict):
        return None
    of = entry.fields_by_name["value"].message_type
    if of is not None and of.name == "ModelParameter":
        return {key: v if isinstance(v, dict) else {"string_value": _text(v)} for key, v in value.items()}
    return dict(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def short(value: Any) -> str:
    """A value as JSON, cut where it would fill the screen."""
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
