"""Client and AsyncClient are twins, `clients` exports what it says, and importing it costs little."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import clients
from clients import AsyncClient, Client
from clients.over_grpc import AsyncGrpcTransport, GrpcTransport
from clients.over_http import AsyncHttpTransport, HttpTransport

TWINS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def public(kind: type[Any]) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and (not name.startswith("_") or name in {*TWINS, *TWINS.values(), "__init__"})
    }


def test_both_clients_have_the_same_methods() -> None:
    assert {TWINS.get(name, name) for name in public(Client)} == set(public(AsyncClient))


@pytest.mark.parametrize("name", sorted(public(Client)))
def test_a_method_and_its_twin_agree(name: str) -> None:
    sync, twin = public(Client)[name], public(AsyncClient)[TWINS.get(name, name)]
    assert inspect.signature(sync).parameters == inspect.signature(twin).parameters
    assert inspect.getdoc(sync) == inspect.getdoc(twin)
    if not name.startswith("__"):
        assert sync.__doc__
    returned = str(inspect.signature(twin).return_annotation).removeprefix("Async").replace(", None", "")
    assert returned == str(inspect.signature(sync).return_annotation).replace(", None", "")


@pytest.mark.parametrize("name", sorted(n for n in public(AsyncClient) if n != "__init__"))
def test_every_asynchronous_method_is_one(name: str) -> None:
    method = public(AsyncClient)[name]
    assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


@pytest.mark.parametrize(("sync", "twin"), [(HttpTransport, AsyncHttpTransport), (GrpcTransport, AsyncGrpcTransport)])
def test_transports_agree(sync: type[Any], twin: type[Any]) -> None:
    # Threads are the sync ones' alone.
    assert set(public(sync)) - {"release"} == set(public(twin))
    assert inspect.signature(sync.call).parameters == inspect.signature(twin.call).parameters


def test_all_is_what_it_says() -> None:
    assert clients.__all__ == sorted(clients.__all__, key=lambda name: (name.islower(), name))
    assert set(clients.__all__) <= set(vars(clients))
    from_clients: dict[str, Any] = {}
    exec("from clients import *", from_clients)
    assert set(clients.__all__) == set(from_clients) - {"__builtins__"}


def test_importing_clients_loads_no_heavy_library() -> None:
    heavy = {"tritonclient", "gevent", "grpc", "aiohttp", "pandas", "google.protobuf", "rich", "torch", "click"}
    code = "import sys, clients; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert heavy & set(loaded.stdout.split()) == set()
