"""What a running server says of a model before it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clients.address import parse_address
from conch.errors import ConchError
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, render
from conch.tensor_spec import ModelSignature


@dataclass(frozen=True)
class ServedModel:
    """A model as it is served. ``version`` is the one that answers; ``config_text`` what it is served by, and its
    members where it is an ensemble; ``release`` the server's version.
    """

    name: str
    version: str
    config_text: str
    signature: ModelSignature
    decoupled: bool
    release: str


def ask(url: str, name: str, version: str = "") -> ServedModel:
    """Ask a server of either protocol. Raises: ClientError, ConchError."""
    from clients.client import Client

    with Client(url, retries=1) as client:
        metadata = client.metadata(name, version or None)
        release = client.server().version
    highest = max(metadata.versions, key=lambda v: (len(v), v), default="")
    text = joined(configs(url, name), name)
    return ServedModel(name, version or highest, text, metadata.signature, metadata.decoupled, release)


def configs(url: str, model: str) -> dict[str, ModelConfigMessage]:
    """The config of a model, and of all that it is made of, as the server completed them. Raises: ConchError."""
    found: dict[str, ModelConfigMessage] = {}
    due = [model]
    while due:
        name = due.pop(0)
        if name not in found:
            found[name] = _config(url, name)
            due += [step.model_name for step in found[name].ensemble_scheduling.step]
    return found


def joined(found: Mapping[str, ModelConfigMessage], name: str) -> str:
    """The text of a model's config, followed by those of the models that it needs."""
    names = [name, *(other for other in found if other != name)]
    if len(names) == 1:
        return render(found[name])
    return "\n".join(f"# {each}/{CONFIG_FILE}\n{render(found[each])}" for each in names)


def _config(url: str, name: str) -> ModelConfigMessage:
    if parse_address(url).is_grpc:
        from server.control import Control

        with Control(url) as control:
            return control.config(name)
    from google.protobuf.json_format import ParseDict, ParseError

    from server import http_api

    document = http_api.ask(url.rstrip("/"), f"/v2/models/{name}/config", {})
    config = ModelConfig()
    try:
        ParseDict(document, config, ignore_unknown_fields=True)
    except (ParseError, TypeError) as error:
        raise ConchError("the server's answer is no configuration", where=url, got=f"{document!r:.80}") from error
    return config
