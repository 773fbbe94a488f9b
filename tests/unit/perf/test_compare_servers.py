"""The comparison's arithmetic, its order and its files; the servers themselves are `make bench`'s."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conch.errors import ConchError
from conch.manifest import Manifest
from conch.model_config import ModelSettings, build_config
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from perf.compare_servers import (
    GRAPH,
    MODELS,
    Contender,
    export_missing,
    in_turn,
    read_binary_answer,
    texts,
    write_triton_request,
)
from perf.http_load import LoadResult
from perf.standings import compare, rows, write_plot, write_table


def load(rps: float, p99_ms: float, failures: int = 0) -> LoadResult:
    return LoadResult(8, 100, failures, rps, 1.0, p99_ms)


RUNS = {
    "plain": [load(100, 20), load(10, 200, failures=3), load(100, 20)],
    "tuned": [load(110, 25), load(11, 250), load(120, 25)],
    "ours": [load(220, 10), load(22, 100), load(120, 10)],
}


def test_ratios_are_over_the_best_rival_and_within_a_round() -> None:
    plain, tuned, ours = compare(RUNS, ("plain", "tuned"))
    assert (plain.rps_ratio, tuned.p99_ratio) == (None, None)
    # Requests: 220/110, 22/11, 120/120 of tuned; p99: 10/20, 100/200, 10/20 of plain.
    assert (ours.rps_ratio, ours.p99_ratio) == (2.0, 0.5)
    assert (tuned.requests_per_second, plain.p99_ms) == (110, 20)
    assert [s.failures for s in (plain, tuned, ours)] == [3, 0, 0]


def test_the_table_shows_every_server(tmp_path: Path) -> None:
    standings = compare(RUNS, ("plain", "tuned"))
    assert [row[1] for row in rows(standings)] == ["plain", "tuned", "ours"]
    assert rows(standings)[2][2:] == ("120", "2.00", "10.0", "0.50")
    write_table(standings, tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[2] == "| 8 | plain | 100 |  | 20.0 |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    write_plot(compare(RUNS, ("plain", "tuned")), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_another_server_goes_first_each_round() -> None:
    contenders = [Contender(name, "", str.encode, lambda _: np.zeros(1)) for name in "abcd"]
    orders = ["".join(c.name for c in in_turn(contenders, turn)) for turn in range(5)]
    assert orders == ["abcd", "bcda", "cdab", "dabc", "abcd"]


def test_the_numbers_after_the_json_are_read() -> None:
    numbers = np.array([0.5, -2.0, 3e-9], np.float32)
    head = {"outputs": [{"name": "embedding", "shape": [1, 3], "parameters": {"binary_data_size": 12}}]}
    np.testing.assert_array_equal(read_binary_answer(json.dumps(head).encode() + numbers.tobytes()), numbers)


def test_a_request_is_one_text_and_asks_for_binary_tensors() -> None:
    request = json.loads(write_triton_request("철수"))
    assert request["inputs"][0]["data"] == ["철수"]
    assert request["parameters"] == {"binary_data_output": True}


def test_texts_are_the_same_in_every_run_and_of_mixed_length() -> None:
    lengths = [len(text.split()) for text in texts()]
    assert texts() == texts()
    assert 5 <= min(lengths) < 10
    assert 30 < max(lengths) <= 40


@pytest.mark.parametrize("same", [True, False])
def test_forms_of_different_graphs_are_not_compared(same: bool, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    signature = ModelSignature((TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP32", (1,)),), 8)
    with repository.stage() as stage:
        for name in (*MODELS, GRAPH):
            config = build_config(name, signature, ModelSettings(backend="onnxruntime"))
            folder = stage.add_model(name, config)
            digest = "a" if same or name == GRAPH else "b"
            Manifest(
                model=name, created_at="now", source={}, files={"model.onnx": digest}, config="", settings={}
            ).write(folder)
        stage.commit()
    if same:
        export_missing(repository)
    else:
        with pytest.raises(ConchError, match="different graphs"):
            export_missing(repository)
