"""Settings from where they stand: a YAML file, the environment, flags. Each key is checked, and says where it stood."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from clients.address import parse_address
from conch.errors import ClientError, ConfigError, nearest
from gateway.settings import ENVIRONMENT, Limits, Server, Settings

T = TypeVar("T")

# Keys that are no user's to write.
_INNER = frozenset({"file"})
_CHOICES = {
    "when_store_fails": ("allow", "refuse"),
    "log_format": ("text", "json"),
    "log_level": ("debug", "info", "warning", "error"),
}


def read(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings of one gateway; ``flags`` win over the environment, this over the file.

    Raises: ConfigError, naming place and key, with the nearest for one that there is not.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values |= _typed(Settings, _document(path), str(path), path.absolute().parent)
        values["file"] = path.absolute()
    values |= _typed(Settings, _from_environment(environment), "the environment", Path.cwd())
    values |= _typed(Settings, dict(flags or {}), "the command line", Path.cwd())
    settings = Settings(**values)
    _check(settings)
    return settings


def read_limits(path: Path) -> Limits:
    """Just the limits of a file, for one that changed under a running gateway. Raises: ConfigError."""
    values = _typed(Settings, _document(path), str(path), path.absolute().parent)
    limits: Limits = values.get("limits", Limits())
    return limits


def server(text: str) -> Server:
    """A Triton by its URLs: ``http://HOST:8000,grpc://HOST:8001``. Of one, the other port is the one beside it.

    Raises: ConfigError.
    """
    found: dict[str, str] = {}
    try:
        for url in text.split(","):
            address = parse_address(url.strip())
            found["grpc" if address.is_grpc else "http"] = str(address)
            other = "http" if address.is_grpc else "grpc"
            port = address.port + (-1 if address.is_grpc else 1)
            secure = "s" if address.is_secure else ""
            found.setdefault(other, f"{other}{secure}://{address.host}:{port}")
    except ClientError as error:
        raise ConfigError(
            "that is no address of a Triton", got=text, expected="http://HOST:8000,grpc://HOST:8001", fix=error.fix
        ) from error
    return Server(**found)


def _document(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the gateway's settings cannot be read", where=path, got=error) from error
    except yaml.YAMLError as error:
        raise ConfigError("the gateway's settings are no YAML", where=path, got=error) from error
    if not isinstance(document, dict):
        raise ConfigError("the gateway's settings are no mapping", where=path, got=type(document).__name__)
    return document


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The values of CONCH_GATEWAY_*, parsed as YAML; but for _CONFIG, which is the command line's."""
    import yaml

    found: dict[str, Any] = {}
    for name, text in environment.items():
        key = name.removeprefix(ENVIRONMENT).lower()
        if not name.startswith(ENVIRONMENT) or key == "config":
            continue
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{name} is no YAML", where="the environment", got=text) from error
    return found


def _typed(kind: type[Any], document: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """A mapping's values as the fields of a dataclass take them."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.name not in _INNER}
    values = {}
    for name, value in document.items():
        key = str(name)
        if key not in fields:
            close = nearest(key, fields)
            raise ConfigError(
                f"the gateway has no setting {key}",
                where=where,
                got=key,
                expected=", ".join(fields),
                fix=f"did you mean {close}?" if close else None,
            )
        values[key] = _value(key, fields[key], value, where, folder)
    return values


def _value(key: str, hint: Any, value: Any, where: str, folder: Path) -> Any:
    """One value as its field's type; what does not fit is refused, nothing is guessed."""

    def wrong(expected: str) -> ConfigError:
        return ConfigError(f"{key} has the wrong type", where=where, got=repr(value), expected=expected)

    if get_origin(hint) is UnionType:
        if value is None:
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        listed = value.split() if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            raise wrong("a list")
        return tuple(_value(key, arguments[0], item, where, folder) for item in listed)
    if origin is not None:
        if not isinstance(value, Mapping):
            raise wrong("a mapping")
        return {str(k): _value(f"{key}: {k}", arguments[1], v, where, folder) for k, v in value.items()}
    if hint is Server and isinstance(value, str):
        return server(value)
    if isinstance(value, hint):
        return value if hint is not int or not isinstance(value, bool) else _raise(wrong("a whole number"))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise wrong("a mapping")
        return hint(**_typed(hint, value, f"{where}: {key}", folder))
    return _scalar(key, hint, value, folder, wrong)


def _scalar(key: str, hint: Any, value: Any, folder: Path, wrong: Callable[[str], ConfigError]) -> Any:
    if hint is Path and isinstance(value, str) and value:
        return (folder / Path(value).expanduser()).absolute()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    raise wrong(words.get(hint, hint.__name__))


def _raise(error: Exception) -> Any:
    raise error


def _check(settings: Settings) -> None:
    """Raise ConfigError for values that make no gateway."""
    if not settings.servers:
        raise ConfigError("the gateway has no server to ask", where="servers", expected="at least one Triton")
    least = {"workers": 1, "queue_limit": 1, "timeout_s": 0, "drain_s": 0, "notice_s": 0, "body_size_mb": 0, "port": 0}
    for key, low in least.items():
        value = getattr(settings, key)
        if value < low or (value == 0 and key in ("timeout_s", "body_size_mb")):
            raise ConfigError(f"{key} is out of range", got=value, expected=f"{low} or more")
    for key, value in [*vars(settings).items(), *vars(settings.limits).items()]:
        if key in _CHOICES and value not in _CHOICES[key]:
            close = nearest(str(value), _CHOICES[key])
            raise ConfigError(
                f"{key} is not known",
                got=value,
                expected=" or ".join(_CHOICES[key]),
                fix=f"did you mean {close}?" if close else None,
            )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("TLS needs a certificate and its key", got="one of them", expected="tls_cert and tls_key")
    for key in ("repository", "tls_cert", "tls_key"):
        path = getattr(settings, key)
        if path is not None and not path.exists():
            raise ConfigError(f"{key} is not there", got=path)
    for name, others in settings.fallbacks.items():
        if name in others:
            raise ConfigError("a model cannot fall back on itself", where="fallbacks", got=name)
