"""Every error that conch raises on purpose, in one tree.

ConchError
├── SignatureError          a tensor's name, type or shape is not what the model has
├── ConfigError             a config.pbtxt that does not parse or contradicts itself
├── RepositoryError         the repository on disk: names, versions, manifests, disk full
├── ExportError             a source that cannot be turned into a version
│   ├── ParityError         the written model answers otherwise than its source
│   └── UntrustedSource     a pickle that was not vouched for with --trust
├── ServerError             Triton could not be found, started or steered
│   └── ModelLoadError      a model of the repository did not become ready
└── ClientError             a request that did not get its answer
    ├── InvalidInput        refused before sending, or by the server as the request's fault
    │   └── ContextTooLong  more tokens than the model takes
    ├── ServerUnavailable   nobody answers at the address
    │   └── QueueFull       as many requests wait for the model as may
    ├── ModelNotFound       the server answers, and has no such model
    ├── ModelNotReady       the server has the model, and does not serve it now
    ├── RequestTooLarge     over a message-size limit
    ├── DeadlineExceeded    no answer within the deadline
    └── InferenceFailed     the model itself failed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConchError(Exception):
    """A failure the user can act on: what happened, where, what came, what was due, and how to mend it.

    ``str(error)`` is the whole message, one part a line, ready for a terminal.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        parts = (
            ("where", self.where),
            ("got", self.got),
            ("expected", self.expected),
            ("fix", self.fix),
        )
        lines = [self.what]
        lines += [f"  {name + ':':<10}{value}" for name, value in parts if value is not None]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.got, self.expected, self.fix)


def _rebuild(
    kind: type[ConchError], what: str, where: object, got: object, expected: object, fix: str | None
) -> ConchError:
    """Unpickle an error: keyword-only arguments need help to cross a process boundary."""
    return kind(what, where=where, got=got, expected=expected, fix=fix)


class SignatureError(ConchError):
    """A tensor's name, type or shape is not what the model has."""


class ConfigError(ConchError):
    """A config.pbtxt does not parse, or says things that exclude each other."""


class RepositoryError(ConchError):
    """The repository on disk does not allow what was asked of it."""


class ExportError(ConchError):
    """A source could not be turned into a version; the repository is untouched."""


class ParityError(ExportError):
    """The written model does not answer as its source does."""


class UntrustedSource(ExportError):
    """Loading the source would run its code, and nobody vouched for it."""


class ServerError(ConchError):
    """Triton could not be found, started or steered."""


class ModelLoadError(ServerError):
    """A model of the repository did not become ready."""


class ClientError(ConchError):
    """A request did not get its answer."""


class InvalidInput(ClientError):
    """The request is wrong: a name, a shape, a type. Sending it again cannot help."""


class ContextTooLong(InvalidInput):
    """Prompt and answer are longer than the model's context."""


class ServerUnavailable(ClientError):
    """Nobody answers at the address, or the connection broke."""


class QueueFull(ServerUnavailable):
    """As many requests wait for the model as may; a later one may be taken."""


class ModelNotFound(ClientError):
    """The server answers and has no model, or no version, of that name."""


class ModelNotReady(ClientError):
    """The server knows the model and does not serve it now."""


class RequestTooLarge(ClientError):
    """The request is over a message-size limit of the client or the server."""


class DeadlineExceeded(ClientError):
    """No answer came within the deadline."""


class InferenceFailed(ClientError):
    """The model ran and failed."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None when nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
