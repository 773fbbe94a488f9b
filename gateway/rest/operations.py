"""The paths of /openapi.json that come from what is served: one a model, and its batches; generate and stream. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from gateway.catalogue import ServedModel
from gateway.rest.assets import Assets
from gateway.rest.rows import MAX_ROWS
from gateway.rest.schemas import Schema, answer_schema, form_schema, row_schema

ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string", "description": "what, where, what came, what was due, how to mend it"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field, e.g. rows[3].age"},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_ERRORS = {
    "4XX": {
        "description": "The request is refused, and why",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    },
    "5XX": {
        "description": "No answer could be made",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    },
}
_ANSWERED_BY = {
    "X-Model-Name": {"description": "who answered, URL-encoded", "schema": {"type": "string"}},
    "X-Model-Version": {"description": "its version", "schema": {"type": "string"}},
}


@dataclass(frozen=True)
class Paths:
    """Path items by path, and the component schemas that they refer to."""

    items: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, Schema] = field(default_factory=dict)


def component_name(model: str) -> str:
    """A model's name as a part of component names, which allow letters, digits, `.`, `-` and `_` alone; one to one."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f".{ord(found[0]):x}", model)


def errors() -> dict[str, Any]:
    """The responses that every operation may have besides its own."""
    return dict(_ERRORS)


def model_paths(model: ServedModel, assets: Assets) -> Paths:
    """/predict/NAME and /predict/NAME/batch."""
    name = component_name(model.name)
    row, rows, answer, answers = (f"{name}_{part}" for part in ("row", "rows", "answer", "answers"))
    one, many = _content(row), _content(rows)
    schemas = {
        row: row_schema(model, assets),
        rows: _list_of(row, minItems=1, maxItems=MAX_ROWS) | {"additionalProperties": False},
        answer: answer_schema(model, assets),
        answers: _list_of(answer),
    }
    form = form_schema(model)
    if form is not None:
        one |= _content(f"{name}_form", "multipart/form-data")
        many |= _content(f"{name}_forms", "multipart/form-data")
        schemas |= {f"{name}_form": form, f"{name}_forms": _form_of_many(form)}
    path = f"/predict/{quote(model.name, safe='')}"
    text = f"Versions that serve: {', '.join(model.versions)}; {model.version} answers where none is asked for."
    items = {
        path: _operation(f"predict_{name}", f"Ask {model.name} about one row", text, one, answer, model),
        f"{path}/batch": _operation(
            f"predict_{name}_batch",
            f"Ask {model.name} about many rows",
            f"{text} Rows are asked in requests of at most {max(1, model.signature.max_batch_size)}.",
            many,
            answers,
            model,
        ),
    }
    return Paths(items, schemas)


def _content(schema: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _list_of(schema: str, **limits: int) -> Schema:
    listed = {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}, **limits}
    return {"type": "object", "properties": {"rows": listed}, "required": ["rows"]}


def _form_of_many(form: Schema) -> Schema:
    """A form whose fields may each be there several times."""
    properties = {name: {"type": "array", "items": value, "minItems": 1} for name, value in form["properties"].items()}
    return form | {"properties": properties}


def _operation(
    name: str, summary: str, description: str, content: dict[str, Any], answer: str, model: ServedModel
) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "tags": ["predict"],
            "summary": summary,
            "description": description,
            "parameters": [_version_parameter(model.versions)],
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {"description": "The model's outputs", "headers": _ANSWERED_BY, "content": _content(answer)},
                **_ERRORS,
            },
        }
    }


def _version_parameter(versions: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "name": "X-Model-Version",
        "in": "header",
        "required": False,
        "description": "ask this version" + (f": {', '.join(versions)}" if versions else ""),
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
    }


def generate_paths(models: Sequence[ServedModel]) -> Paths:
    """/generate and /stream, for the models that generate text; nothing where there are none."""
    if not models:
        return Paths()
    versions = sorted({version for model in models for version in model.versions}, key=lambda v: (len(v), v))
    body = {"required": True, "content": _content("Generate")}
    shared = {"tags": ["generate"], "parameters": [_version_parameter(versions)], "requestBody": body}
    done = {"description": "The text", "headers": _ANSWERED_BY, "content": _content("Generated")}
    events = {
        "description": 'Pieces as they are made, `data: {"text": "..."}`; the last has finish_reason and usage',
        "headers": _ANSWERED_BY,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    items = {
        "/generate": {
            "post": {
                "operationId": "generate",
                "summary": "Generate a text",
                **shared,
                "responses": {"200": done, **_ERRORS},
            }
        },
        "/stream": {
            "post": {
                "operationId": "stream",
                "summary": "Generate a text, and send it as server-sent events",
                **shared,
                "responses": {"200": events, **_ERRORS},
            }
        },
    }
    return Paths(items, {"Generate": _generate_schema(models), "Generated": _generated_schema()})


def _generate_schema(models: Sequence[ServedModel]) -> Schema:
    number, whole, text = {"type": "number"}, {"type": "integer"}, {"type": "string"}
    message = {
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {"type": ["string", "null"]}},
        "required": ["role"],
    }
    properties: dict[str, Schema] = {
        "model": {"type": "string", "enum": [model.name for model in models]},
        "prompt": {"type": "string", "minLength": 1, "description": "text to go on with; or messages"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": message,
            "description": "a chat; the model's own template renders it",
        },
        "tools": {"type": "array", "items": {"type": "object"}},
        "template_variables": {"type": "object"},
        "max_tokens": whole | {"minimum": 1},
        "min_tokens": whole | {"minimum": 0},
        "temperature": number | {"minimum": 0, "description": "0 takes the likeliest token each time"},
        "top_p": number | {"minimum": 0, "maximum": 1},
        "top_k": whole | {"minimum": -1},
        "min_p": number | {"minimum": 0, "maximum": 1},
        "presence_penalty": number | {"minimum": -2, "maximum": 2},
        "frequency_penalty": number | {"minimum": -2, "maximum": 2},
        "repetition_penalty": number | {"minimum": 0},
        "stop": {"type": "array", "items": text | {"minLength": 1}, "description": "the text ends before any of these"},
        "stop_token_ids": {"type": "array", "items": whole | {"minimum": 0}},
        "ignore_eos": {"type": "boolean"},
        "seed": whole,
        "logprobs": whole | {"minimum": 0, "description": "log-probabilities of each token, and of so many others"},
        "json_schema": {"type": "object", "description": "hold the text to this JSON schema"},
        "lora": {"type": "string", "minLength": 1, "description": "an adapter of the model"},
        "extra": {"type": "object", "description": "parameters of the model's own engine"},
    }
    required = ["model"] if len(models) > 1 else []
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "examples": [{"model": models[0].name, "prompt": "Once upon a time", "max_tokens": 16}],
    }


def _generated_schema() -> Schema:
    count = {"type": ["integer", "null"]}
    return {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "finish_reason": {"type": ["string", "null"], "description": "stop, length or cancelled"},
            "usage": {
                "type": "object",
                "properties": {"input_tokens": count, "output_tokens": count},
                "required": ["input_tokens", "output_tokens"],
            },
            "logprobs": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["text", "finish_reason", "usage"],
    }
