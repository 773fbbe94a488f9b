"""Ask the staged model in a scratch Triton, whole and in pieces, and hold its answers to the source's."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conch.errors import ClientError, ExportError, ParityError
from conch.manifest import Golden, Parity, tensor_to_json
from conch.repository import Stage
from conch.tensor_spec import Array
from export.llm.compare import Answer, Expected
from export.llm.options import OpenVinoOptions
from export.llm.source import LlmSource, load_tokenizer
from export.trial import REQUEST_TIMEOUT_S, START_TIMEOUT_S

if TYPE_CHECKING:
    from clients import Client

# A golden answer must come out of another CPU, too, which adds in another order: only tokens that lead by far.
CLEAR = 0.05
GOLDEN_REQUESTS = 3
# What stands for bytes that are no whole character, where an answer was cut.
CUT = "\N{REPLACEMENT CHARACTER}"
# The engine keeps keys and values in 8 bits, and so is coarser than the file's own arithmetic: see compare.TIE.
TIE = 0.02


@dataclass(frozen=True)
class Trial:
    """What the scratch server said: a note for the report, and what the manifest keeps."""

    note: str
    parity: tuple[Parity, ...] = ()
    golden: tuple[Golden, ...] = ()


def run(stage: Stage, name: str, source: LlmSource, expected: Expected, options: OpenVinoOptions) -> Trial:
    """Serve the stage and ask it every prompt. Raises: ServerError, ExportError, ParityError (fp16 only)."""
    if not options.trial:
        return Trial("left out (--no-trial)")
    if importlib.util.find_spec("pytriton") is None:
        return Trial("left out: nvidia-pytriton is not installed (pip install -e '.[server]')")
    with _served(stage) as client:
        answers = [ask(client, name, request_of(answer)) for answer in expected.answers]
        whole = answers[0] if answers else ""
        pieces = list(_pieces(client, name, {**request_of(expected.answers[0]), "stream": np.array([True])}))
        if "".join(pieces) != whole:
            raise ExportError("the answer in pieces is not the answer as a whole", got="".join(pieces), expected=whole)
        rows = compare_texts(expected.answers, answers, source, exact=options.weight_format == "fp16")
        kept = [] if _is_dated(source) else [one for one in expected.answers if clear_tokens(one) >= 4]
        golden = tuple(record(client, name, answer) for answer in kept[:GOLDEN_REQUESTS])
    note = f"loaded in Triton, {len(answers)} prompts answered, one of them in {len(pieces)} pieces"
    return Trial(note, rows, golden)


def _is_dated(source: LlmSource) -> bool:
    """Whether the template writes today's date into each prompt, so that tomorrow's answer may be another."""
    return "strftime_now" in (source.facts.chat_template or "")


@contextmanager
def _served(stage: Stage) -> Iterator[Client]:
    from clients import Client
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    server = ServerOptions(control="none", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=5)
    with (
        EmbeddedServer(stage.path, server, start_timeout_s=START_TIMEOUT_S) as triton,
        Client(triton.grpc_url, timeout_s=REQUEST_TIMEOUT_S) as client,
    ):
        yield client


def request_of(answer: Answer, max_tokens: int | None = None) -> dict[str, Array]:
    """The inputs that ask for a prompt's greedy answer: as a chat where it is one."""
    sampling = {"temperature": 0, "max_tokens": max_tokens or max(1, len(answer.tokens))}
    inputs = {"text_input": _text(answer.prompt.text), "sampling_parameters": _text(json.dumps(sampling))}
    if answer.prompt.is_chat:
        messages = [{"role": "user", "content": answer.prompt.question}]
        inputs |= {"text_input": _text(""), "chat": _text(json.dumps({"messages": messages}))}
    return inputs


def ask(client: Client, name: str, request: Mapping[str, Array]) -> str:
    """A whole answer. Raises: ExportError when there is none."""
    return "".join(_pieces(client, name, request))


def _pieces(client: Client, name: str, request: Mapping[str, Array]) -> Iterator[str]:
    try:
        for response in client.stream(name, dict(request)):
            output = response.get("text_output")
            if output is not None and output.size:
                yield _decoded(output.ravel()[0])
    except ClientError as error:
        raise ExportError(
            "the scratch Triton loaded the version, and did not answer a prompt",
            where=name,
            got=error,
            fix="the version was not added; mend what is named above",
        ) from error


def compare_texts(
    answers: Sequence[Answer], served: Sequence[str], source: LlmSource, *, exact: bool
) -> tuple[Parity, ...]:
    """How many answers are the source's own, up to a token that rounding decides.

    Raises: ParityError for the first that is not, where they must be.
    """
    tokenizer = load_tokenizer(source.folder)
    equal = []
    for answer, got in zip(answers, served, strict=True):
        close = np.flatnonzero(answer.lead <= TIE)
        sure = answer.tokens[: int(close[0])] if close.size else answer.tokens
        due = str(tokenizer.decode(sure, skip_special_tokens=True)).rstrip(CUT)
        same = got.startswith(due) if close.size else got.rstrip(CUT) == due
        if exact and not same:
            raise ParityError(
                "the served model does not answer as its source",
                where=repr(answer.prompt.question),
                got=repr(got),
                expected=repr(due),
            )
        equal.append(same)
    share = sum(equal) / len(equal) if equal else 1.0
    return (Parity("text_output", len(equal), 1 - share, 0.0 if exact else 1.0, None, share),)


def clear_tokens(answer: Answer) -> int:
    """How many tokens from the first on no rounding can change."""
    close = np.flatnonzero(answer.lead <= CLEAR)
    return int(close[0]) if close.size else len(answer.tokens)


def record(client: Client, name: str, answer: Answer) -> Golden:
    """A short request and what the served model says to it, for the manifest."""
    request = request_of(answer, max_tokens=clear_tokens(answer))
    got = ask(client, name, request)
    return Golden(
        inputs={key: tensor_to_json(array) for key, array in request.items()},
        outputs={"text_output": tensor_to_json(_text(got))},
    )


def _text(text: str) -> Array:
    return np.array([text], dtype=object)


def _decoded(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
