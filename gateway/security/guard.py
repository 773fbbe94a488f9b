"""API keys: who asks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import HTTPConnection

from conch.errors import ConfigError
from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.pieces import Guard, NoGuard
from gateway.security import keys
from gateway.security.keys import Key
from gateway.security.keys_file import read
from gateway.security.watched_file import WatchedFile
from gateway.settings import Settings

log = logging.getLogger("conch.gateway")

_HERE = ("127.0.0.1", "localhost", "::1")
_BEARER = b"bearer "
# What a key that nobody has is compared with, so that the answer takes as long.
_NOBODY = keys.digest("")


@dataclass(frozen=True)
class KeyCaller(Caller):
    """A caller with limits of its own; None takes the gateway's."""

    requests: str | None = None
    tokens: str | None = None


def build(settings: Settings) -> Guard:
    """The one that the settings ask for. Raises: ConfigError."""
    if settings.keys_file is not None:
        return KeyGuard(settings.keys_file)
    if settings.host not in _HERE:
        log.warning("everybody who reaches %s may ask every model: keys_file is not set", settings.host)
    return NoGuard()


class KeyGuard:
    """Lets in who has a key of the file, which is read again when it changes; while it is a bad one, the old keys stay.

    Raises: ConfigError, when it is bad from the start.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path)
        self._entries = _entries(read(path))

    def caller(self, connection: HTTPConnection) -> Caller:
        """Who asks: ``Authorization: Bearer KEY``, or ``X-API-Key: KEY``. Raises: GatewayError 401."""
        if self._file.changed():
            self._read_again()
        text = _sent(connection)
        if not text:
            raise _refusal("no API key came with the request", fix="send it as `Authorization: Bearer KEY`")
        key, caller = self._entries.get(keys.name_in(text), (None, None))
        fits = keys.same(keys.digest(text), key.sha256 if key is not None else _NOBODY)
        if not fits or key is None or caller is None:
            raise _refusal("this API key is not known here")
        if (key.revoked or key.expires) and not key.opens(keys.utc_now()):
            over = f"revoked {key.revoked}" if key.revoked else f"good until {key.expires}"
            raise _refusal(f"this API key was {over}")
        return caller

    def _read_again(self) -> None:
        try:
            self._entries = _entries(read(self._file.path))
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("read %d keys from %s", len(self._entries), self._file.path)


def _entries(found: tuple[Key, ...]) -> dict[str, tuple[Key, Caller]]:
    return {key.name: (key, _caller(key)) for key in found}


def _caller(key: Key) -> Caller:
    # A key that may not ask models at all, such as an admin's alone, is one that no model fits.
    models = key.models if keys.INFER in key.roles else ()
    return KeyCaller(key.name, key.roles, models, key.requests, key.tokens)


def _sent(connection: HTTPConnection) -> str:
    for name, value in connection.scope["headers"]:
        if name == b"authorization" and value[:7].lower() == _BEARER:
            return bytes(value[7:]).decode("latin-1").strip()
        if name == b"x-api-key":
            return bytes(value).decode("latin-1").strip()
    return ""


def _refusal(what: str, fix: str | None = None) -> GatewayError:
    return GatewayError(what, status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}, fix=fix)
