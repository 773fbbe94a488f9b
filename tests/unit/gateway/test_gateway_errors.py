"""Failures as answers: which status, and what stays inside."""

from __future__ import annotations

import pytest

from conch.errors import (
    ClientError,
    ConchError,
    ContextTooLong,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    RequestTooLarge,
    ServerUnavailable,
)
from gateway.errors import GatewayError, error_body, from_client_error, from_conch_error, unexpected

WHERE = "model m at http://10.0.0.7:8000"


@pytest.mark.parametrize(
    ("kind", "status", "code", "retry"),
    [
        (InvalidInput, 400, None, None),
        (ContextTooLong, 400, "context_length_exceeded", None),
        (ModelNotFound, 404, "model_not_found", None),
        (RequestTooLarge, 413, "request_too_large", None),
        (QueueFull, 429, "queue_full", "1"),
        (InferenceFailed, 500, "model_failed", None),
        (ClientError, 502, None, None),
        (ModelNotReady, 503, "model_not_ready", "1"),
        (ServerUnavailable, 503, "no_server", "1"),
        (DeadlineExceeded, 504, "deadline_exceeded", None),
    ],
)
def test_each_failure_has_its_status(kind: type[ClientError], status: int, code: str | None, retry: str | None) -> None:
    answer = from_client_error(kind("it failed", where=WHERE, fix="see `conch status`"))
    assert (answer.status, answer.code, answer.headers.get("Retry-After")) == (status, code, retry)
    assert "10.0.0.7" not in answer.message
    assert "conch status" not in answer.message


def test_a_models_stack_stays_inside() -> None:
    said = "TypeError: no\n\nAt:\n  /srv/models/m/1/model.py(12): execute\n"
    assert "model.py" not in from_client_error(InferenceFailed("the model failed", got=said)).message


def test_the_names_of_all_models_stay_inside() -> None:
    error = ModelNotFound("no model a", expected="one of secret, b", fix="did you mean b?")
    assert from_client_error(error).message == "no model a; did you mean b?"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_the_body_is_openais(status: int, kind: str) -> None:
    error = GatewayError("no", status=status, code="c", param="p", got="x")
    assert error_body(error) == {"error": {"message": "no; got x", "type": kind, "param": "p", "code": "c"}}


def test_any_error_of_ours_is_an_answer_and_a_bug_says_only_where_to_look() -> None:
    assert from_conch_error(ConchError("wrong")).status == 400
    assert unexpected("id-1").message == "the gateway failed; request id-1"
