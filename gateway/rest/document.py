"""GET /openapi.json: the gateway's own paths, and one a model, as they are served at this moment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from conch.switching import side_models
from gateway.caller import admitted, gateway_of
from gateway.catalogue import ServedModel
from gateway.rest.assets import assets_of
from gateway.rest.json_body import write_json
from gateway.rest.operations import ERROR, Paths, errors, generate_paths, model_paths
from gateway.settings import Settings

router = APIRouter()


async def openapi(request: Request) -> Response:
    """The document, of the models that the caller may use."""
    caller, gateway = await admitted(request), gateway_of(request)
    models = [model for model in public(await gateway.catalogue.models()) if caller.may_use(model.name)]
    return Response(write_json(document(request.app, models, gateway.settings)), media_type="application/json")


def public(models: Sequence[ServedModel]) -> list[ServedModel]:
    """Those that are asked by their own names: no parts of pipelines, no canaries (they are asked as NAME@ALIAS)."""
    names = {model.name for model in models}
    members = {step.model for model in models for step in model.steps}
    beside = {name for name in names if (side := side_models.parse(name)) and side.model in names}
    return [model for model in models if model.name not in members | beside]


def document(app: FastAPI, models: Sequence[ServedModel], settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1. FastAPI makes the part that does not change, and keeps it."""
    whole = copy.deepcopy(app.openapi())
    components = whole.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for item in whole["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)  # FastAPI's own shape: gateway.errors answers with 400 and ours
            operation["responses"] |= errors()
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Error"] = ERROR
    text = [model for model in models if model.kind == "generate"]
    rows = [model for model in models if model.kind != "generate" and not model.decoupled]
    parts: list[Paths] = [generate_paths(text)]
    parts += [model_paths(model, assets_of(settings.repository, model)) for model in rows]
    for part in parts:
        whole["paths"] |= part.items
        schemas |= part.schemas
    if settings.keys_file is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"key": []}]
    return whole


router.add_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
