"""GET /metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.caller import Admitted, gateway_of
from gateway.errors import GatewayError
from gateway.observe.metrics import PrometheusMetrics
from gateway.security.keys import METRICS

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, caller: Admitted) -> Response:
    """Prometheus' text format.

    Where there are keys, it takes one of the role ``metrics`` or ``admin``: the figures name every key and every model.
    """
    gateway = gateway_of(request)
    if gateway.settings.keys_file is not None and not (caller.is_admin or METRICS in caller.roles):
        raise GatewayError(
            "this key may not read the metrics",
            status=403,
            code="not_metrics",
            fix="create one with `conch gateway key create --role metrics`",
        )
    assert isinstance(gateway.metrics, PrometheusMetrics)
    return Response(gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)
