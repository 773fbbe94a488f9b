"""Whether a model is of the kind that a route is for."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.catalogue import Kind, ServedModel
from gateway.errors import GatewayError

_ROUTES: Mapping[str, str] = {
    "generate": "/v1/chat/completions or /v1/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}


def require_kind(served: ServedModel, kind: Kind, route: str) -> None:
    """Raise GatewayError 400 unless the model is of this kind, naming the route that it has."""
    if served.kind != kind:
        raise GatewayError(
            f"model {served.name} cannot be asked at {route}",
            status=400,
            code="wrong_kind_of_model",
            param="model",
            got=f"a model of the kind {served.kind}",
            fix=f"ask it at {_ROUTES.get(served.kind, f'/predict/{served.name}')}",
        )
