"""What is asked with, what goes over the wire, and how the result is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from conch.errors import ConchError, InvalidInput, ServerUnavailable
from conch.tensor_spec import ModelSignature, TensorSpec
from perf.analyzer import inputs
from perf.explain import asked
from perf.explain.breakdown import Breakdown, Part
from perf.explain.cli import explain
from perf.explain.traced_load import drive, render
from perf.explain.waterfall import COLORS, WORDS, family, text_bar, write_plot

SIGNATURE = ModelSignature(
    (
        TensorSpec("text", "BYTES", (1,)),
        TensorSpec("image", "BYTES", (1,)),
        TensorSpec("x", "FP32", (-1,)),
        TensorSpec("half", "BF16", (2,)),
    ),
    (TensorSpec("y", "FP32", (1,)),),
    8,
)
REQUEST = {"text": [["철수"]], "image": [[b"\x89PNG\xff"]], "x": [[1.5, -2.0, 3.0]], "half": [[1.0, -0.5]]}


def test_inputs_come_back_as_the_arrays_they_were() -> None:
    (step,) = inputs.from_requests(SIGNATURE, [REQUEST], "here").steps
    back = asked.arrays(SIGNATURE, step)
    assert back["text"].tolist() == [["철수"]]
    assert back["image"].tolist() == [[b"\x89PNG\xff"]]
    assert back["x"].tolist() == REQUEST["x"]
    assert back["x"].dtype == np.float32
    assert back["half"].tolist() == REQUEST["half"]


def test_inputs_of_perf_analyzers_own_forms_are_read() -> None:
    back = asked.arrays(SIGNATURE, {"x": {"content": [1, 2], "shape": [2]}, "text": ["ok"]})
    assert (back["x"].tolist(), back["text"].tolist()) == ([[1.0, 2.0]], [["ok"]])


def test_an_input_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidInput) as failure:
        asked.arrays(SIGNATURE, {"x": {"content": ["a"], "shape": [1]}})
    assert failure.value.where == "x"


def test_without_real_inputs_one_is_made_up_and_it_is_said(tmp_path: Path) -> None:
    choice = asked.choose("nobody_knows_this", SIGNATURE, None, tmp_path)
    assert len(choice.requests) == 1
    assert "--inputs" in choice.notes[0]
    SIGNATURE.check_inputs(dict(choice.requests[0]))


class FakeClient:
    """Answers metadata and a mask as a tokenizer would: one token a letter, padded to 4."""

    def __init__(self, output: str) -> None:
        self.signature = ModelSignature((), (TensorSpec(output, "INT64", (-1,)),), 8)

    def metadata(self, model: str) -> FakeClient:
        assert model == "pre"
        return self

    def infer(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        length = len(request["text"].item())
        return {"attention_mask": np.array([[1] * length + [0] * (-length % 4)])}


TEXTS = tuple({"text": np.array([[text]], dtype=object)} for text in ("ab", "abcdef"))


def test_padding_is_seen_in_what_the_first_step_makes() -> None:
    seen = asked.padding(FakeClient("attention_mask"), "m", ("pre", "model"), TEXTS)
    assert seen is not None
    assert (seen.step, seen.tokens, seen.places, seen.widths) == ("pre", 8, 12, (4, 8))
    assert seen.waste == pytest.approx(1 / 3)
    assert asked.padding(FakeClient("pixels"), "m", ("pre", "model"), TEXTS) is None
    assert asked.padding(FakeClient("attention_mask"), "m", (), TEXTS) is None


def test_padding_is_seen_in_the_requests_themselves() -> None:
    seen = asked.padding(None, "m", (), ({"attention_mask": np.array([[1, 1, 1, 0]])},))
    assert seen is not None
    assert (seen.step, seen.waste) == ("m", 0.25)


SENT = asked.tensors(SIGNATURE, {"x": np.ones((1, 2), np.float32), "text": np.array([["ab"]], object)})


def test_a_request_says_its_lengths_and_keeps_them_with_another_id() -> None:
    message = render("http://host:80", "spam", SENT, {"k": "v"})
    head, _, body = message.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v2/models/spam/infer HTTP/1.1"
    assert {"Host: host:80", "k: v", f"Content-Length: {len(body)}"} <= set(lines)
    (size,) = (int(line.split(": ")[1]) for line in lines if line.startswith("Inference-Header-Content-Length"))
    described = json.loads(body[:size])
    assert described["id"] == "conch-explain-00000000-00000000"
    assert [(i["shape"], i["datatype"]) for i in described["inputs"]] == [([1, 2], "FP32"), ([1, 1], "BYTES")]
    assert [i["parameters"]["binary_data_size"] for i in described["inputs"]] == [8, 6]
    assert np.frombuffer(body[size : size + 8], np.float32).tolist() == [1.0, 1.0]
    assert body[size + 8 :] == b"\x02\0\0\0ab"


def test_the_same_request_over_grpc() -> None:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest.FromString(render("grpc://host:81", "spam", SENT, {}))
    assert (request.model_name, request.id) == ("spam", "conch-explain-00000000-00000000")
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
        ("x", "FP32", [1, 2]),
        ("text", "BYTES", [1, 1]),
    ]
    assert list(request.raw_input_contents) == [np.ones(2, np.float32).tobytes(), b"\x02\0\0\0ab"]


def test_numbers_keep_the_type_that_the_model_has() -> None:
    (sent,) = asked.tensors(SIGNATURE, {"half": np.array([[1.0, -0.5]], np.float32)})
    assert b'"BF16"' in render("http://host:80", "m", (sent,), {})
    assert render("http://host:80", "m", (sent,), {}).endswith(b"\x80\x3f\x00\xbf")


@pytest.mark.parametrize("url", ["https://host:1", "host:8000"])
def test_an_address_that_no_load_goes_to_is_refused(url: str) -> None:
    with pytest.raises(ConchError, match="without TLS"):
        render(url, "m", SENT, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "grpc://127.0.0.1:9"])
def test_nobody_at_the_address_is_said(url: str) -> None:
    with pytest.raises(ServerUnavailable):
        drive(url, [render(url, "m", SENT, {})], 2, 0.3, {})


KINDS = ("to_server", "receive", "hop", "queue", "compute_input", "compute_infer", "compute_output", "cache")
PARTS = tuple(Part("m", kind, 2.0 * i, 2.0) for i, kind in enumerate((*KINDS, "respond", "to_client", "unseen")))
WHERE = Breakdown(24.0, 10, PARTS, "traces", 10, {})


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
def test_every_part_has_a_colour_and_a_word(part: Part) -> None:
    assert family(part) in COLORS
    assert family(part) in WORDS
    assert part.label


@pytest.mark.parametrize(
    ("start_ms", "ms", "bar"),
    [(0, 5, "█████"), (5, 5, "     █████"), (5, 0.01, "     ▏"), (10, 0.0, "         ▏"), (9, 3, "         █")],
)
def test_bars_lie_where_their_time_is(start_ms: float, ms: float, bar: str) -> None:
    assert text_bar(Part("m", "queue", start_ms, ms), 10.0, width=10) == bar


def test_the_waterfall_is_a_picture(tmp_path: Path) -> None:
    write_plot(WHERE, "m", tmp_path / "new" / "w.png")
    assert (tmp_path / "new" / "w.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    done = CliRunner().invoke(explain, ["m", "--url", "http://127.0.0.1:1", "--header", "no-colon"])
    assert done.exit_code == 2
    assert "NAME:VALUE" in done.output
    assert CliRunner().invoke(explain, ["m", "--concurrency", "0"]).exit_code == 2
    assert "conch perf explain" in CliRunner().invoke(explain, ["--help"]).output
