"""Load and unload models on a running server, over gRPC.

Never over HTTP: the load call occupies one of the server's few HTTP threads until the model is ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from conch.errors import ModelLoadError, ModelNotFound, ServerError, ServerUnavailable, nearest
from conch.model_config import ModelConfigMessage
from server.http_api import ModelState
from server.load_failures import advice, tidy
from server.options import GRPC_HEADER_PREFIX

_SCHEMES = ("grpc", "grpcs")
_REFUSES_LOADS = "explicit model load / unload is not allowed"
# No model can have this name, and letting go of what is not there changes nothing.
_NO_MODEL = ".conch-asks-how-models-are-loaded"


class Control:
    """Steer the models of one server.

    ``url`` is grpc://HOST:PORT or grpcs://HOST:PORT. ``headers`` go with each call; names are given as Triton's
    restriction has them, without its gRPC prefix. A load takes as long as the model does: ``timeout_s`` is generous.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._headers = {GRPC_HEADER_PREFIX + k.removeprefix(GRPC_HEADER_PREFIX): v for k, v in (headers or {}).items()}
        self._client = _connect(url)

    def load(self, name: str) -> None:
        """Load a model, or its new versions; the old serve until the new are ready.

        An ensemble's members are loaded with it. Raises: ModelLoadError, ModelNotFound, ServerUnavailable, ServerError.
        """
        self._call("load_model", name)

    def unload(self, name: str, *, dependents: bool = False) -> None:
        """Let a model go; with ``dependents`` an ensemble's members too. Raises: ServerUnavailable, ServerError."""
        self._call("unload_model", name, unload_dependents=dependents)

    def takes_loads(self) -> bool:
        """Whether models are loaded when told: explicit control. Raises: ServerUnavailable, ServerError."""
        try:
            self.unload(_NO_MODEL)
        except ServerError as error:
            if _REFUSES_LOADS in str(error.got):
                return False
            raise
        return True

    def config(self, name: str) -> ModelConfigMessage:
        """The config that the server serves a model by, completed by Triton. Raises: ServerUnavailable, ServerError."""
        return self._call("get_model_config", name).config

    def index(self) -> list[ModelState]:
        """Every model that the server knows, with the reason where one is not ready.

        Raises: ServerUnavailable, ServerError.
        """
        answer = self._call("get_model_repository_index")
        return [ModelState(m.name, m.version, m.state, tidy(m.reason)) for m in answer.models]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            call = getattr(self._client, method)
            return call(*arguments, headers=self._headers, client_timeout=self.timeout_s, **options)
        except InferenceServerException as error:
            raise self._explain(error.status() or "", error.message() or "", *arguments) from error

    def _explain(self, status: str, message: str, name: str = "") -> ServerError | ServerUnavailable | ModelNotFound:
        # Triton gives the status UNAVAILABLE to what it refuses by its settings, too.
        if "restricted" in message:
            fix = "give the header that the server's restriction names"
            return ServerError("this API is restricted on this server", where=self.url, got=message, fix=fix)
        if "DEADLINE" in status:
            return ServerError(f"no answer within {self.timeout_s:g} s", where=self.url, got=message)
        if _REFUSES_LOADS in message:
            fix = "start the server with --control explicit; in poll mode it loads by itself"
            return ServerError("the server does not take load calls", where=self.url, got=message, fix=fix)
        if "UNAVAILABLE" in status:
            fix = "start a server with `conch serve`, or name another address"
            return ServerUnavailable("no Triton server answers", where=self.url, got=message, fix=fix)
        if name and "failed to poll from model repository" in message:
            known = sorted({m.name for m in self.index()})
            close = nearest(name, known)
            return ModelNotFound(
                f"there is no model named {name} in the server's repository",
                where=self.url,
                got=name,
                expected=", ".join(known) or "the repository is empty",
                fix=f"did you mean {close}?" if close else "export it first",
            )
        reason = tidy(message)
        if not name:
            return ServerError("the server refused", where=self.url, got=reason)
        fix = advice(ModelState(name, "", "", reason))
        return ModelLoadError(f"model {name} did not load", where=self.url, got=reason, fix=fix)


def _connect(url: str) -> Any:
    import tritonclient.grpc as grpcclient

    scheme, _, address = url.partition("://")
    if scheme not in _SCHEMES or not address:
        raise ServerError(
            "models are loaded over gRPC",
            got=url,
            expected="grpc://HOST:PORT or grpcs://HOST:PORT",
            fix="give the server's gRPC address: by default its port is 8001",
        )
    return grpcclient.InferenceServerClient(address.rstrip("/"), ssl=scheme == "grpcs")
