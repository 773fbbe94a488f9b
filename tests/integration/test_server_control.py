"""Loading and unloading over gRPC, and what is said when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conch.errors import ModelLoadError, ModelNotFound, ServerError, ServerUnavailable
from server import ports
from server.control import Control
from server.options import Restriction

pytestmark = pytest.mark.integration


def state(control: Control, name: str) -> list[tuple[str, str]]:
    return [(m.version, m.state) for m in control.index() if m.name == name]


def test_load_a_new_version_and_unload(triton: Any, write_python_model: Any) -> None:
    write_python_model(triton.repository, "control_steps")
    assert state(triton.control, "control_steps") == [("", "")]
    triton.load("control_steps")
    assert state(triton.control, "control_steps") == [("1", "READY")]
    write_python_model(triton.repository, "control_steps", version=2, added=2)
    triton.load("control_steps")
    assert ("2", "READY") in state(triton.control, "control_steps")
    triton.unload("control_steps")
    assert not [s for _, s in state(triton.control, "control_steps") if s == "READY"]


def test_a_version_that_fails_leaves_the_old_one_serving(triton: Any, write_python_model: Any) -> None:
    write_python_model(triton.repository, "control_breaks")
    triton.load("control_breaks")
    write_python_model(triton.repository, "control_breaks", "import no_such_package_at_all\n", version=2)
    with pytest.raises(ModelLoadError, match="model control_breaks did not load") as raised:
        triton.load("control_breaks")
    assert "No module named 'no_such_package_at_all'" in str(raised.value.got)
    assert "no_such_package_at_all" in str(raised.value.fix)
    assert ("1", "READY") in state(triton.control, "control_breaks")


def test_an_unknown_model_names_the_nearest(triton: Any, write_python_model: Any) -> None:
    write_python_model(triton.repository, "control_spelling")
    with pytest.raises(ModelNotFound, match="control_speling") as raised:
        triton.load("control_speling")
    assert raised.value.fix == "did you mean control_spelling?"


def test_no_server(triton: Any) -> None:
    port = ports.choose("127.0.0.1", 1)[0]
    with Control(f"grpc://127.0.0.1:{port}") as control, pytest.raises(ServerUnavailable, match="no Triton"):
        control.index()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "127.0.0.1:8001", "grpc://"])
def test_only_grpc(url: str) -> None:
    with pytest.raises(ServerError, match="over gRPC"):
        Control(url)


def test_poll_mode_and_restrictions_are_explained(tmp_path: Path, write_python_model: Any, start_server: Any) -> None:
    write_python_model(tmp_path, "tiny")
    restriction = Restriction(("model-repository",), "admin-key", "secret")
    server = start_server(tmp_path, control="poll", restrictions=(restriction,))
    with Control(server.grpc_url) as control, pytest.raises(ServerError, match="restricted"):
        control.index()
    with Control(server.grpc_url, headers={"admin-key": "secret"}) as control:
        assert state(control, "tiny") == [("1", "READY")]
        with pytest.raises(ServerError, match="does not take load calls") as raised:
            control.load("tiny")
    assert "--control explicit" in str(raised.value.fix)
