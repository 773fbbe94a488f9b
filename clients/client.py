"""`Client`: a Triton server, or several, from ordinary code. Its twin for asyncio is `clients.async_client`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from clients.address import MAX_MESSAGE_BYTES, TLS, Address
from clients.aliases import Aliases, AliasSource
from clients.attempts import RetryPolicy
from clients.encoding import answer_reader
from clients.exchange import Send, Sleep, Steps
from clients.generation import Generated, Piece, Sampling, chat_document, sampling_parameters, whole
from clients.generation_wire import TextRequest, piece_reader
from clients.in_order import in_order
from clients.inference import Inference
from clients.over_grpc import GrpcTransport
from clients.over_http import HttpTransport
from clients.replies import Answer, ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from clients.request import Question
from clients.shadow import Shadow, ShadowReport
from conch.errors import ClientError

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class Client:
    """Asks models over HTTP or gRPC. One may be shared by any number of threads.

        with Client("grpc://127.0.0.1:8001") as client:
            answer = client.infer("spam", text=["win a prize now", "see you at nine"])
            text(answer["label"])

    ``url`` is ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, or a list of such, which are asked in turn.
    ``api_key`` is sent as ``Authorization: Bearer ...``, ``headers`` as they are. ``timeout_s`` is the deadline of each
    call, retries included; each call may set its own. ``retries`` is the number of tries after the first, for what is
    safe to try again (see `clients.attempts`). ``shared_memory`` hands large tensors to a server on this machine
    through /dev/shm: True for those of 64 KiB and more, or a number of bytes. ``aliases`` resolve names such as
    ``spam@stable``, and give a canary its share of ``spam``: a repository's folder, a mapping, or `Aliases`.
    ``shadow`` also sends a share of the requests to a candidate, and compares: see `Shadow`, `shadow_report`.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        retries: RetryPolicy | int = 5,
        tls: TLS | None = None,
        shared_memory: bool | int = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        aliases: AliasSource | Aliases | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._exchange = Inference(
            url,
            api_key=api_key,
            headers=headers,
            timeout_s=timeout_s,
            retries=retries,
            tls=tls,
            shared_memory=shared_memory,
            max_message_bytes=max_message_bytes,
            aliases=aliases,
            shadow=shadow,
        )
        self._transports = {a: self._transport(a) for a in self._exchange.addresses}
        workers = shadow.workers if shadow is not None else 0
        self._behind = [
            threading.Thread(target=self._reflect, name="conch-shadow", daemon=True) for _ in range(workers)
        ]
        for thread in self._behind:
            thread.start()

    def _transport(self, address: Address) -> GrpcTransport | HttpTransport:
        kind = GrpcTransport if address.is_grpc else HttpTransport
        return kind(address, self._exchange.options)

    def infer(
        self,
        model: str,
        inputs: Any = None,
        /,
        *,
        version: int | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **tensors: Any,
    ) -> Answer:
        """Ask a model once: its outputs by name, strings as object arrays of ``bytes`` (`clients.text` decodes them).

        Inputs are keywords, a mapping, a DataFrame, or the bare value of a model with one input. Values may be scalars,
        lists, text, bytes, numpy arrays, pandas Series: see `clients.convert` for the rules. They are checked
        against the model before they are sent. ``outputs`` asks for just these; ``version`` for one version. Where a
        canary has a share of the requests, those with one ``sticky_key`` (a user's name, say) meet the same version.
        The answer's attributes ``model`` and ``version`` say who gave it.
        Raises: ClientError, InvalidInput among them.
        """
        question = Question.of(model, inputs, tensors, version, outputs)
        return self._run(self._exchange.infer(question, timeout_s, sticky_key))

    def stream(
        self,
        model: str,
        inputs: Any = None,
        /,
        *,
        version: int | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **tensors: Any,
    ) -> Generator[Answer, None, None]:
        """Ask a decoupled model, and yield each response as it comes. Only over gRPC.

        Arguments are those of `infer`; ``timeout_s`` is the deadline of the whole stream. Leaving the loop cancels the
        request. A stream that has begun is never tried again. Any number of streams may run at a time.
        Raises: ClientError, at the first response or later.
        """
        question = Question.of(model, inputs, tensors, version, outputs)
        send = self._run(self._exchange.stream_request(question, timeout_s, sticky_key))
        yield from self._responses(send, answer_reader(send.operation))

    def generate(
        self,
        model: str,
        prompt: str,
        /,
        *,
        version: int | str | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generated:
        """Generate text after a prompt, and return it whole. Only over gRPC.

        The keywords of ``sampling`` are those of `clients.generation.Sampling`: max_tokens, temperature, stop, seed ...
        Other arguments are those of `infer`; ``timeout_s`` is the deadline of the whole text. What the model made by
        then is lost: `generate_stream` hands it out as it comes.
        Raises: ClientError; of these ContextTooLong and QueueFull are told apart.
        """
        request = TextRequest(sampling_parameters(**sampling), prompt)
        return whole(self._pieces(model, request, version, timeout_s, sticky_key))

    def generate_stream(
        self,
        model: str,
        prompt: str,
        /,
        *,
        version: int | str | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generator[Piece, None, None]:
        """Generate text after a prompt, and yield each piece as it comes. Only over gRPC.

        Arguments are those of `generate`. Closing the iterator cancels the request: its place at the model is free.
        Raises: ClientError, at the first piece or later.
        """
        request = TextRequest(sampling_parameters(**sampling), prompt, stream=True)
        yield from self._pieces(model, request, version, timeout_s, sticky_key)

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        version: int | str | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generated:
        """Generate the next message of a chat, and return it whole. Only over gRPC.

        ``messages`` are mappings with a role and a content, as OpenAI's clients have them; the model renders them with
        its own chat template, which may use ``tools`` and ``template_variables``. Other arguments are those of
        `generate`. Raises: ClientError.
        """
        request = TextRequest(sampling_parameters(**sampling), chat=chat_document(messages, tools, template_variables))
        return whole(self._pieces(model, request, version, timeout_s, sticky_key))

    def chat_stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        version: int | str | None = None,
        timeout_s: float | None = None,
        sticky_key: str | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generator[Piece, None, None]:
        """Generate the next message of a chat, and yield each piece as it comes. Only over gRPC.

        Arguments are those of `chat`. Closing the iterator cancels the request.
        Raises: ClientError, at the first piece or later.
        """
        request = TextRequest(
            sampling_parameters(**sampling),
            chat=chat_document(messages, tools, template_variables),
            stream=True,
        )
        yield from self._pieces(model, request, version, timeout_s, sticky_key)

    def infer_many(
        self,
        model: str,
        requests: Iterable[Any],
        /,
        *,
        concurrency: int = 8,
        version: int | str | None = None,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Answer | ClientError]:
        """Ask a model many times, ``concurrency`` requests at once; yield the answers in the order of the requests.

        Each of ``requests`` is what `infer` takes as its inputs; they are read as they are needed. ``timeout_s`` is the
        deadline of each. ``on_error="return"`` yields a request's ClientError in its place, and goes on.
        Raises: ClientError.
        """

        def ask(inputs: Any) -> Answer | ClientError:
            try:
                return self.infer(model, inputs, version=version, outputs=outputs, timeout_s=timeout_s)
            except ClientError as error:
                if on_error == "raise":
                    raise
                return error

        yield from in_order(ask, requests, concurrency, self._release)

    def ready(
        self, model: str | None = None, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> bool:
        """Whether the server, or one model, answers requests now. An unreachable server is not ready."""
        return self._run(self._exchange.ready(model, version, timeout_s))

    def models(self, *, timeout_s: float | None = None) -> tuple[ModelState, ...]:
        """Every model and version that the server knows, and its state. Raises: ClientError."""
        return self._run(self._exchange.models(timeout_s))

    def server(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """The server's name, version and extensions. Raises: ClientError."""
        return self._run(self._exchange.server(timeout_s))

    def metadata(
        self, model: str, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> ModelMetadata:
        """A model's versions and signature, read anew. Raises: ClientError."""
        return self._run(self._exchange.metadata(model, version, timeout_s))

    def statistics(
        self, model: str | None = None, version: int | str | None = None, *, timeout_s: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What a model's versions, or all models', have done since they were loaded. Raises: ClientError."""
        return self._run(self._exchange.statistics(model, version, timeout_s))

    def shadow_report(self, *, wait_s: float = 0.0) -> ShadowReport:
        """How the candidate's answers differ so far; waits up to ``wait_s`` for those that are under way.

        Raises: InvalidInput when the client has no shadow.
        """
        mirror = self._exchange.reporting()
        mirror.wait(wait_s)
        return mirror.report()

    def close(self) -> None:
        """Close every connection, and give shared memory back. The client is not to be used afterwards."""
        if self._exchange.mirror is not None:
            self._exchange.mirror.end(len(self._behind))
        for thread in self._behind:
            thread.join()
        self._run(self._exchange.close())
        for transport in self._transports.values():
            transport.close()

    def _pieces(
        self,
        model: str,
        request: TextRequest,
        version: int | str | None,
        timeout_s: float | None,
        sticky_key: str | None,
    ) -> Generator[Piece, None, None]:
        question = Question.of(model, request.inputs, {}, version, None)
        send = self._run(self._exchange.stream_request(question, timeout_s, sticky_key))
        yield from self._responses(send, piece_reader(request))

    def _responses(self, send: Send, read: Callable[[Any], T | None]) -> Generator[T, None, None]:
        transport = self._transports[send.address]
        assert isinstance(transport, GrpcTransport)
        try:
            yield from transport.stream(send.operation, send.timeout_s, read)
        except Exception as error:
            raise self._exchange.stream_failure(error, send) from error

    def _reflect(self) -> None:
        """Send samples to the candidate, one after the other, until there are no more to come."""
        assert self._exchange.mirror is not None
        while (sample := self._exchange.mirror.next()) is not None:
            self._run(self._exchange.reflect(sample))
        self._release()

    def _release(self) -> None:
        """Close what the transports hold for the calling thread, which is about to end."""
        for transport in self._transports.values():
            transport.release()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        """Carry out an exchange's steps."""
        try:
            step = next(steps)
            while True:
                reply: Any
                try:
                    if isinstance(step, Sleep):
                        time.sleep(step.seconds)
                        reply = None
                    else:
                        reply = self._transports[step.address].call(step.operation, step.timeout_s)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
