"""Which model and version a request goes to: an alias's, a canary's by its weight, or just what was asked for.

Pure but for the aliases, which look after themselves.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

from clients.aliases import Aliases, AliasSource
from conch import ledger
from conch.errors import ClientError, InvalidInput, ModelNotFound, ModelNotReady, RepositoryError
from conch.ledger import Alias, Ledger


class CanaryPassedOver(RuntimeWarning):
    """A canary could not answer its share of the requests: the version that serves did."""


@dataclass(frozen=True)
class Route:
    """The model and version to ask, as Triton knows them; ``version`` empty for the latest.

    ``asked`` is what the user wrote, ``public`` the model's name in it. ``canary`` is the alias whose weight chose this
    route instead of the model itself.
    """

    model: str
    version: str
    asked: str
    canary: str = ""

    @property
    def public(self) -> str:
        """The model's public name."""
        return self.asked.partition("@")[0]


class Router:
    """Finds routes by the aliases that a client was given, if any. Thread-safe."""

    def __init__(self, aliases: AliasSource | Aliases | None) -> None:
        self._aliases = aliases if aliases is None or isinstance(aliases, Aliases) else Aliases(aliases)
        self._told: set[tuple[str, str]] = set()

    def named(self, name: str, version: str = "", *, now: bool = False) -> Route:
        """The route to a model or an alias, weights aside; ``now`` looks at the aliases once more.

        Raises: InvalidInput, ModelNotFound for an alias that is not there.
        """
        if not ledger.is_alias(name):
            return Route(name, version, name)
        if version:
            fix = f"leave the version out, or ask {name.partition('@')[0]}"
            raise InvalidInput("an alias names a version already", got=f"{name}, version {version}", fix=fix)
        if self._aliases is None:
            raise InvalidInput(
                f"{name} is an alias, and this client was given none to resolve it by",
                got=name,
                expected="a model, or a client with aliases",
                fix='Client(url, aliases="model_repository"), or a mapping: aliases={"spam@stable": 3}',
            )
        try:
            alias = ledger.resolve(self._aliases.ledger(now=now), name)
        except RepositoryError as error:
            raise ModelNotFound(
                error.what, where=self._aliases, got=error.got, expected=error.expected, fix=error.fix
            ) from error
        return _to(alias, name)

    def choose(self, name: str, version: str = "", sticky_key: str | None = None) -> Route:
        """The route of one request: a model's weighted aliases get their share of those that name no version.

        With ``sticky_key`` the share is one of keys, not of requests: a key meets the same version until weights
        change, and as a canary's weight grows, keys only move towards it. Raises: as `named`.
        """
        if self._aliases is None or version or ledger.is_alias(name):
            return self.named(name, version)
        weighted = _weighted(self._aliases.ledger(), name)
        if not weighted:
            return Route(name, version, name)
        point = self._aliases.rng.random() if sticky_key is None else _point(name, sticky_key)
        for alias_name, alias in weighted:
            if point < alias.weight:
                return _to(alias, name, canary=alias_name)
            point -= alias.weight
        return Route(name, version, name)

    def instead(self, route: Route, error: ClientError) -> Route | None:
        """Where to send a request that got an error on its route; None where the error is the answer.

        A canary that is not there, or does not take what the model takes, is passed over, with a warning for the first
        time. An alias that was moved since it was looked up is followed.
        """
        if route.canary:
            if self._is_current(route):
                self._tell(route, error)
            return Route(route.public, "", route.asked)
        if not ledger.is_alias(route.asked) or isinstance(error, InvalidInput):
            return None
        moved = self.named(route.asked, now=True)
        return moved if moved != route else None

    def explain(self, route: Route, error: ClientError) -> ClientError:
        """The error, with the alias that led there."""
        if not (ledger.is_alias(route.asked) and isinstance(error, ModelNotFound | ModelNotReady)):
            return error
        target = f"{route.model} version {route.version}"
        return type(error)(
            f"{route.asked} is not served: {error.what}",
            where=error.where,
            got=f"{route.asked} stands for {target}; {error.got}",
            expected=error.expected,
            fix=f"load {target}, or move the alias: conch repo alias {route.asked} VERSION",
        )

    def _is_current(self, route: Route) -> bool:
        """Whether a canary's alias still leads there; one that was promoted or taken back is nothing to warn of."""
        assert self._aliases is not None
        alias = self._aliases.ledger(now=True).aliases.get(route.public, {}).get(route.canary)
        return alias is not None and (alias.model, str(alias.version)) == (route.model, route.version)

    def _tell(self, route: Route, error: ClientError) -> None:
        target = (route.model, route.version)
        if target in self._told:
            return
        self._told.add(target)
        message = f"{route.public}@{route.canary} is passed over, {route.public} answers in its place: {error}"
        warnings.warn(message, CanaryPassedOver, stacklevel=2)


def _to(alias: Alias, asked: str, canary: str = "") -> Route:
    return Route(alias.model, str(alias.version), asked, canary)


def _weighted(known: Ledger, name: str) -> list[tuple[str, Alias]]:
    return sorted((n, alias) for n, alias in known.aliases.get(name, {}).items() if alias.weight > 0)


def _point(name: str, sticky_key: str) -> float:
    """A key's place in [0, 1): the same in every process, and another for another model."""
    digest = hashlib.blake2b(f"{name}\0{sticky_key}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / float(1 << 56)
