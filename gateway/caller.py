"""Who asks, and what they may ask."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import Request

from gateway.errors import GatewayError
from gateway.request_info import STATE

if TYPE_CHECKING:
    from gateway.gateway import Gateway

ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """One API key's owner. ``models`` are patterns with * and ?; None stands for all.

    ``key_id`` names the key in logs, metrics and limits; it is no secret.
    """

    key_id: str
    roles: frozenset[str] = frozenset()
    models: tuple[str, ...] | None = None

    def may_use(self, model: str) -> bool:
        """Whether the caller may use a model, by the name that is asked for; an alias counts as its model."""
        if self.models is None:
            return True
        public = model.partition("@")[0]
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.models for name in (model, public))

    @property
    def is_admin(self) -> bool:
        """Whether the caller may load, unload and publish."""
        return ADMIN in self.roles


ANONYMOUS = Caller("anonymous")


def gateway_of(request: Request) -> Gateway:
    """The state that all requests of a process share."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def admitted(request: Request) -> Caller:
    """The caller of a request; a dependency, and a plain function for handlers that do without.

    Raises: GatewayError 401 when the key is missing or wrong.
    """
    caller = gateway_of(request).guard.caller(request)
    request.scope[STATE].record.key_id = caller.key_id
    return caller


async def admitted_admin(request: Request) -> Caller:
    """The caller, when it is an admin. Raises: GatewayError 401, 403."""
    caller = await admitted(request)
    if not caller.is_admin:
        raise GatewayError(
            "this key is not an admin's",
            status=403,
            code="not_admin",
            fix="create one with `conch gateway key create --role admin`",
        )
    return caller


def require(caller: Caller, model: str) -> None:
    """Raise GatewayError 403 unless the caller may use the model."""
    if not caller.may_use(model):
        raise GatewayError(f"this key may not use model {model}", status=403, code="model_not_allowed", param="model")


Admitted = Annotated[Caller, Depends(admitted)]
AdmittedAdmin = Annotated[Caller, Depends(admitted_admin)]
