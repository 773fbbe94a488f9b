"""GET /v1/models and /v1/models/{id}: what the caller may ask, in OpenAI's shape, and what kind of model each is.

Source: https://platform.openai.com/docs/api-reference/models
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from gateway.caller import Admitted, gateway_of
from gateway.catalogue import ServedModel
from gateway.request_info import Info
from gateway.rest.document import public

router = APIRouter(tags=["openai"])


@router.get("/v1/models")
async def models(request: Request, caller: Admitted) -> dict[str, Any]:
    """The models that this key may ask."""
    gateway = gateway_of(request)
    shown = [model for model in public(await gateway.catalogue.models()) if caller.may_use(model.name)]
    return {"object": "list", "data": [_described(model, gateway.settings.repository) for model in shown]}


@router.get("/v1/models/{model:path}")
async def model(request: Request, caller: Admitted, info: Info, model: str) -> dict[str, Any]:
    """One model, by its name or an alias."""
    gateway = gateway_of(request)
    served = await gateway.door.model(caller, model, request=info)
    return _described(served, gateway.settings.repository) | {"id": model}


def _described(model: ServedModel, repository: Path | None) -> dict[str, Any]:
    """The fields of OpenAI's, and behind them our own."""
    described: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": _created(model, repository),
        "owned_by": "conch",
        "kind": model.kind,
        "versions": list(model.versions),
    }
    if model.parameters.get("context_length", "").isdecimal():
        described["max_model_len"] = int(model.parameters["context_length"])  # vLLM's name for it
    return described


def _created(model: ServedModel, repository: Path | None) -> int:
    """When the version that serves was made, in seconds of 1970; 0 where its folder is not to be seen."""
    if repository is None:
        return 0
    try:
        return int((repository / model.name / model.version).stat().st_mtime)
    except OSError:
        return 0
