"""Every failure of the libraries below becomes one of conch's errors, with where, got, expected and a fix."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientConnectorDNSError, ClientOSError, ClientPayloadError, ServerDisconnectedError
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import BadStatusLine
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from clients.address import parse_address
from clients.failures import explain
from clients.request import InferRequest, Operation, Tensor
from conch.errors import (
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    RequestTooLarge,
    ServerUnavailable,
)
from tests.fakes.client_transports import Refused

HTTP = parse_address("http://h:8000")
REQUEST = InferRequest("m", "", (Tensor("x", "FP32", np.zeros((1024, 1024), np.float32)),))
INFER = Operation("infer", inference=REQUEST, model="m")

DNS = ClientConnectorDNSError(
    ConnectionKey("h", 8000, False, True, None, None, None), socket.gaierror(-2, "Name or service not known")
)


@pytest.mark.parametrize(
    ("exception", "kind", "transient", "part"),
    [
        # the server's answers, over HTTP and gRPC
        (Refused("bad shape", "400"), InvalidInput, False, "bad shape"),
        (Refused("bad shape", "StatusCode.INVALID_ARGUMENT"), InvalidInput, False, "bad shape"),
        (Refused("Request for unknown model: 'm' is not found", "404"), ModelNotFound, False, "m"),
        (Refused("Request for unknown model: 'm' is not found", "StatusCode.UNAVAILABLE"), ModelNotFound, False, "m"),
        (Refused("Request for unknown model: 'm' has no available versions", "400"), ModelNotReady, False, "m"),
        (Refused("boom\n\nAt:\n  model.py(3)", "500"), InferenceFailed, False, "model.py(3)"),
        (Refused("boom", "StatusCode.INTERNAL"), InferenceFailed, False, "boom"),
        (Refused("boom", None), InferenceFailed, False, "boom"),
        (Refused("", "502"), ServerUnavailable, True, "http://h:8000"),
        (Refused("busy", "503"), ServerUnavailable, True, "cannot answer now"),
        (Refused("in ensemble 'm', Exceeds maximum queue size", "503"), QueueFull, True, "queue is full"),
        (Refused("Exceeds maximum queue size", "StatusCode.UNAVAILABLE"), QueueFull, True, "max_queue_size"),
        (Refused("slow down", "429"), ServerUnavailable, False, "cannot answer now"),
        (Refused("too big", "413"), RequestTooLarge, False, "4.0 MiB"),
        (
            Refused("CLIENT: Sent message larger than max (9 vs. 8)", "StatusCode.RESOURCE_EXHAUSTED"),
            RequestTooLarge,
            False,
            "9 vs. 8",
        ),
        (Refused("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED"), DeadlineExceeded, False, "7 s"),
        (Refused("", "504"), DeadlineExceeded, False, "7 s"),
        (Refused("This API is restricted, expecting header 'k'", "403"), ClientError, False, "api_key"),
        (Refused("This protocol is restricted", "StatusCode.UNAVAILABLE"), ClientError, False, "api_key"),
        (Refused("who?", "401"), ClientError, False, "api_key"),
        (Refused("Locally cancelled", "StatusCode.CANCELLED"), ClientError, False, "cancelled"),
        # gRPC's own, in the server's place
        (Refused("failed to connect to all", "StatusCode.UNAVAILABLE"), ServerUnavailable, True, "conch serve"),
        (Refused("Socket closed", "StatusCode.UNAVAILABLE"), ServerUnavailable, True, "conch serve"),
        (
            Refused("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "StatusCode.UNAVAILABLE"),
            ServerUnavailable,
            False,
            "ca_file",
        ),
        (Refused("DNS: address lookup failed for h", "StatusCode.UNAVAILABLE"), ServerUnavailable, False, "host h"),
        # sockets
        (ConnectionRefusedError(111, "Connection refused"), ServerUnavailable, True, "conch serve"),
        (ConnectionResetError(104, "reset"), ServerUnavailable, True, "reset"),
        (BrokenPipeError(32, "pipe"), ServerUnavailable, True, "pipe"),
        (OSError(113, "No route to host"), ServerUnavailable, True, "No route"),
        (socket.gaierror(-2, "Name or service not known"), ServerUnavailable, False, "host h is not known"),
        (TimeoutError("timed out"), DeadlineExceeded, False, "timeout_s"),
        (asyncio.TimeoutError(), DeadlineExceeded, False, "timeout_s"),
        (ssl.SSLCertVerificationError("self-signed"), ServerUnavailable, False, "ca_file"),
        # geventhttpclient and aiohttp
        (HTTPConnectionClosed("closed"), ServerUnavailable, True, "closed"),
        (HTTPParseError("Expected HTTP/", 8), ServerUnavailable, False, "grpc://h:8000"),
        (BadStatusLine("x"), ServerUnavailable, False, "does not speak HTTP"),
        (ServerDisconnectedError(), ServerUnavailable, True, "no server answers"),
        (ClientOSError(104, "reset"), ServerUnavailable, True, "reset"),
        (ClientPayloadError("cut"), ServerUnavailable, True, "cut"),
        (DNS, ServerUnavailable, False, "host h is not known"),
        # gRPC's own, from asynchronous streams
        (
            AioRpcError(StatusCode.UNAVAILABLE, Metadata(), Metadata(), "Socket closed"),
            ServerUnavailable,
            True,
            "Socket closed",
        ),
        # protobuf, and what nobody foresaw
        (ValueError("Message X exceeds maximum protobuf size of 2GB: 3"), RequestTooLarge, False, "2GB"),
        (KeyError("x"), ClientError, False, "KeyError"),
        (InvalidInput("mine"), InvalidInput, False, "mine"),
    ],
)
def test_each_failure_has_its_error(exception: Any, kind: type[ClientError], transient: bool, part: str) -> None:
    failure = explain(exception, HTTP, INFER, timeout_s=7.0)
    assert type(failure.error) is kind
    assert failure.transient is transient
    assert part in str(failure.error)


@pytest.mark.parametrize(
    ("url", "hint"), [("grpc://h:8000", "Triton's http port"), ("http://h:8001", "Triton's grpc port")]
)
def test_the_wrong_one_of_tritons_ports_is_pointed_out(url: str, hint: str) -> None:
    failure = explain(ConnectionResetError(104, "reset"), parse_address(url), INFER, 1.0)
    assert hint in str(failure.error.fix)


def test_a_server_that_is_no_triton_is_told_from_a_missing_model() -> None:
    failure = explain(Refused("Not Found", "404"), HTTP, Operation("get_model_config", model="m"), 1.0)
    assert "Triton Inference Server" in str(failure.error)
