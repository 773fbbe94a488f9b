"""Put requests to one version on one server, and hold its answers to what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conch.errors import ClientError, RepositoryError
from conch.manifest import Parity
from conch.tensor_spec import Array, ModelSignature
from server.rollout import answers
from server.rollout.answers import Limits, Request, Tensors


@dataclass(frozen=True)
class Served:
    """A version of a model on the server that ``client`` talks to; the signature is as the server has it."""

    client: Any
    name: str
    version: int
    signature: ModelSignature
    decoupled: bool

    def ask(self, inputs: Tensors) -> dict[str, Array]:
        """One request; of a decoupled model the first response. Raises: RepositoryError when it is not answered."""
        try:
            if self.decoupled:
                return dict(next(iter(self.client.stream(self.name, dict(inputs), version=self.version)), {}))
            return dict(self.client.infer(self.name, dict(inputs), version=self.version))
        except ClientError as error:
            raise _not_answered(self.name, error) from error


def served(client: Any, name: str, version: int) -> Served:
    """A version, asked for what it takes and gives. Raises: RepositoryError."""
    try:
        found = client.metadata(name, version)
    except ClientError as error:
        raise _not_answered(name, error) from error
    return Served(client, name, version, found.signature, found.decoupled)


def put(
    model: Served,
    request: Request,
    parity: Sequence[Parity] = (),
    limits: Limits | None = None,
) -> dict[str, Array]:
    """Put a request, and hold the answer to what is known: form, then values. Returns the answer.

    Raises: RepositoryError, saying which request it was.
    """
    try:
        got = model.ask(request.inputs)
        if not model.decoupled:
            answers.check_form(model.signature, request.inputs, got, request.outputs)
        if request.outputs is not None:
            answers.check_values(got, request.outputs, parity, limits)
    except RepositoryError as error:
        error.where = f"{model.name} version {model.version}, {request.origin}"
        if request.made_up:
            error.fix = "if the model takes other inputs than these made-up ones, give real ones: --golden FILE"
        raise
    return got


def _not_answered(name: str, error: ClientError) -> RepositoryError:
    got = error.what if error.got is None else f"{error.what}: {error.got}"
    return RepositoryError(f"{name} did not answer a request", where=error.where, got=got)
