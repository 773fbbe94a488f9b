"""What is asked in the comparison, how requests are written, and how a contender's process is started and ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conch.errors import ConchError
from conch.manifest import Manifest
from conch.model_config import ModelSettings, build_config
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from perf.contenders.environments import Unavailable, environment, reason
from perf.contenders.processes import cpu_seconds, running
from perf.contenders.triton import binary_request, grpc_request, json_request, read_binary, read_json
from perf.contenders.workloads import WORKLOADS, body, check_same_graph, customers, texts

ROW = {"age": 24.0, "tenure": 2.5}


def test_texts_are_the_same_in_every_run_and_of_mixed_length() -> None:
    lengths = [len(text.split()) for text in texts()]
    assert texts() == texts()
    assert 5 <= min(lengths) < 10
    assert 30 < max(lengths) <= 40


def test_customers_have_the_columns_of_the_sample() -> None:
    from export.samples.churn import COLUMNS

    assert set(customers()[0]) == set(COLUMNS)
    assert customers() == customers()


def test_a_row_in_json() -> None:
    inputs = json.loads(json_request(ROW))["inputs"]
    assert inputs[1] == {"name": "tenure", "datatype": "FP32", "shape": [1, 1], "data": [2.5]}
    assert json.loads(json_request({"text": "철수"}))["inputs"][0]["data"] == ["철수"]


def test_a_picture_as_binary() -> None:
    data, length = binary_request({"image": b"\x89PNG\xff"})
    head = json.loads(data[:length])
    assert head["inputs"][0]["parameters"] == {"binary_data_size": 9}
    assert data[length:] == b"\x05\0\0\0\x89PNG\xff"


def test_binary_and_json_answers_are_read_alike() -> None:
    label = b"\x06\0\0\0leaves"
    scores = np.array([0.25, 0.75], "<f4").tobytes()
    outputs = [
        {"name": "label", "datatype": "BYTES", "parameters": {"binary_data_size": len(label)}},
        {"name": "scores", "datatype": "FP32", "parameters": {"binary_data_size": len(scores)}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    binary = read_binary(head + label + scores, len(head))
    plain = {"outputs": [{"name": "label", "data": ["leaves"]}, {"name": "scores", "data": [0.25, 0.75]}]}
    written = read_json(json.dumps(plain).encode())
    assert list(binary["label"]) == list(written["label"]) == ["leaves"]
    np.testing.assert_array_equal(binary["scores"], written["scores"])


def test_a_grpc_request_is_one_that_triton_parses() -> None:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest.FromString(grpc_request("churn", ROW))
    assert (message.model_name, [tensor.name for tensor in message.inputs]) == ("churn", ["age", "tenure"])
    assert message.raw_input_contents[1] == np.float32(2.5).tobytes()


@pytest.mark.parametrize(
    ("in_json", "expected"), [(False, (b"\x89P", "image/png")), (True, (b'{"image": "iVA="}', "application/json"))]
)
def test_a_picture_for_the_others(in_json: bool, expected: tuple[bytes, str]) -> None:
    data, headers = body({"image": b"\x89P"}, picture_in_json=in_json)
    assert (data, headers["Content-Type"]) == expected


@pytest.mark.parametrize("same", [True, False])
def test_forms_of_different_graphs_are_not_compared(same: bool, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    signature = ModelSignature((TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP32", (1,)),), 8)
    with repository.stage() as stage:
        for index, name in enumerate(WORKLOADS["text"].graphs):
            folder = stage.add_model(name, build_config(name, signature, ModelSettings(backend="onnxruntime")))
            digest = "a" if same else "ab"[index]
            Manifest(
                model=name, created_at="now", source={}, files={"model.onnx": digest}, config="", settings={}
            ).write(folder)
        stage.commit()
    if same:
        check_same_graph(WORKLOADS["text"], repository)
    else:
        with pytest.raises(ConchError, match="different graphs"):
            check_same_graph(WORKLOADS["text"], repository)


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(Unavailable, match=r"its environment cannot be made: .*no-python"):
        environment("none", ("no-such-server",), tmp_path / "environments")
    assert not (tmp_path / "environments" / "none").exists()


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("WARNING: x\nERROR: none of it\nERROR: No matching distribution found for y\n", "ERROR: No matching"),
        ("ensurepip is not available\n", "ensurepip is not available"),
        ("", "no reason given"),
    ],
)
def test_the_reason_is_the_last_error(printed: str, expected: str) -> None:
    assert reason(printed).startswith(expected)


def test_what_a_server_leaves_in_another_session_is_ended(tmp_path: Path) -> None:
    left = tmp_path / "left"
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        f" start_new_session=True); open({str(left)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )

    def ready() -> None:
        if not left.exists() or not left.read_text():
            raise OSError

    with running(lambda _: [sys.executable, "-c", code], {}, ready) as pid:
        child = int(left.read_text())
        os.kill(child, 0)
        assert cpu_seconds([pid]) >= 0
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_ends_at_once_says_what_it_printed() -> None:
    def never() -> None:
        raise OSError

    with (
        pytest.raises(Unavailable, match="it ended with 3: no model here"),
        running(lambda _: [sys.executable, "-c", "print('no model here'); raise SystemExit(3)"], {}, never),
    ):
        pass
