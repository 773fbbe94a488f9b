"""API keys: what each may do, and the hash of its secret. Pure.

A key reads ``conch-NAME-SECRET``. The name finds its entry and is no secret; the secret is 256 random bits, so a plain
SHA-256 cannot be guessed back: slow hashes are for passwords that people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

from conch.errors import ConfigError, nearest

PREFIX = "conch-"
FORMAT = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

INFER = "infer"
ADMIN = "admin"
METRICS = "metrics"
ROLES = (INFER, ADMIN, METRICS)


@dataclass(frozen=True)
class Key:
    """One entry of a keys file.

    ``sha256`` is of the whole key, in hexadecimal. ``models`` are patterns with * and ?; None stands for all.
    ``requests`` and ``tokens`` are limits as the `limits` library writes them, several with a semicolon
    (``600/minute;20/second``); None takes the gateway's default. Times are UTC, None for never.
    """

    name: str
    sha256: str
    roles: frozenset[str] = frozenset({INFER})
    models: tuple[str, ...] | None = None
    requests: str | None = None
    tokens: str | None = None
    created: datetime | None = None
    expires: datetime | None = None
    revoked: datetime | None = None

    def opens(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret(name: str) -> str:
    """A fresh key of that name: what its owner gets, once."""
    return f"{PREFIX}{name}-{secrets.token_hex(32)}"


def digest(text: str) -> str:
    """What a file holds in place of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def name_in(text: str) -> str:
    """The name that a key carries; "" when it is no key of ours."""
    return text[len(PREFIX) :].rpartition("-")[0] if text.startswith(PREFIX) else ""


def same(one: str, other: str) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(one, other)


def utc_now() -> datetime:
    """Now, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def check_limits(text: str, where: str) -> None:
    """Raise ConfigError unless the text is one limit or several."""
    from limits import parse_many

    try:
        parse_many(text)
    except ValueError as error:
        raise ConfigError(
            f"{where}: that is no limit", got=text, expected="such as 600/minute, or 20/second;10000/day"
        ) from error


def from_document(document: Any) -> tuple[Key, ...]:
    """The keys of a parsed file. Raises: ConfigError, naming the entry."""
    if not isinstance(document, Mapping) or not isinstance(document.get("keys"), list):
        raise ConfigError("a keys file holds a list under `keys`", got=type(document).__name__)
    if document.get("format") != FORMAT:
        raise ConfigError("the keys file is of another format", got=document.get("format"), expected=FORMAT)
    keys = tuple(_key(entry, f"keys[{at}]") for at, entry in enumerate(document["keys"]))
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("two keys have one name", got=name)
    return keys


def to_document(keys: Iterable[Key]) -> dict[str, Any]:
    """What is written to a file; fields that say nothing are left out."""
    return {"format": FORMAT, "keys": [_entry(key) for key in keys]}


def _entry(key: Key) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": key.name, "sha256": key.sha256, "roles": sorted(key.roles)}
    if key.models is not None:
        entry["models"] = list(key.models)
    for field in ("requests", "tokens"):
        if getattr(key, field) is not None:
            entry[field] = getattr(key, field)
    for field in ("created", "expires", "revoked"):
        at = getattr(key, field)
        if at is not None:
            entry[field] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return entry


_FIELDS = ("name", "sha256", "roles", "models", "requests", "tokens", "created", "expires", "revoked")


def _key(entry: Any, where: str) -> Key:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is not a key's entry", got=entry, expected="name, sha256, roles, ...")
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{where} has no usable name", got=name, expected="lower-case letters, digits, '_', '.', '-'")
    where = f"key {name}"
    for field in entry:
        if field not in _FIELDS:
            close = nearest(str(field), _FIELDS)
            raise ConfigError(f"{where}: unknown field", got=field, fix=f"did you mean {close}?" if close else None)
    if not _DIGEST.fullmatch(str(entry.get("sha256"))):
        raise ConfigError(f"{where}: sha256 is no SHA-256", fix="create keys with `conch gateway key create`")
    roles = _words(entry.get("roles", [INFER]), f"{where}: roles")
    for role in roles:
        if role not in ROLES:
            raise ConfigError(f"{where}: unknown role", got=role, expected=", ".join(ROLES))
    models = entry.get("models")
    return Key(
        name,
        str(entry["sha256"]),
        frozenset(roles),
        None if models is None else _words(models, f"{where}: models"),
        _limits(entry, "requests", where),
        _limits(entry, "tokens", where),
        _time(entry, "created", where),
        _time(entry, "expires", where),
        _time(entry, "revoked", where),
    )


def _words(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{where}: not a list of words", got=value)
    return tuple(value)


def _limits(entry: Mapping[str, Any], field: str, where: str) -> str | None:
    text = entry.get(field)
    if text is None:
        return None
    check_limits(str(text), f"{where}: {field}")
    return str(text)


def _time(entry: Mapping[str, Any], field: str, where: str) -> datetime | None:
    value = entry.get(field)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise ConfigError(f"{where}: {field} is no time", got=value, expected="2030-01-31T00:00:00Z") from None
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):  # a day alone, as people write it
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise ConfigError(f"{where}: {field} is no time", got=value, expected="2030-01-31T00:00:00Z")
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
