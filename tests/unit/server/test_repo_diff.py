import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from conch.errors import RepositoryError
from conch.model_config import parse
from server.repo_view.cli import diff
from server.repo_view.comparison import Change, Comparison, compare_golden, compare_parts, fields_of
from server.repo_view.contents import look
from server.repo_view.onnx_operators import read_graph
from tests.fakes.onnx_graphs import affine, identity
from tests.fakes.written_versions import CONFIG, add_pipeline, add_side_model, add_versions, golden


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def compared(root: Path, name: str = "spam", before: int = 1, after: int = 2) -> Comparison:
    return compare_parts(look(root), name, before, after)[0]


def test_the_same_files_are_no_change(root: Path) -> None:
    add_versions(root, count=2)
    found = compared(root)
    assert found.same
    assert dataclasses.replace(found, golden=()) == Comparison("spam", 1, 2)
    assert [(o.name, o.largest, o.equal) for o in found.golden] == [
        ("label", None, 1.0),
        ("scores", 0.0, None),
        ("y", 0.0, None),
    ]


def test_each_kind_of_change_is_told(root: Path) -> None:
    add_versions(root)
    config = CONFIG.replace('name: "y" data_type: TYPE_FP32 dims: [ 1 ]', 'name: "y" data_type: TYPE_FP32 dims: [ 2 ]')
    add_versions(
        root,
        config=config + "instance_group { count: 2 }",
        files={"model.py": "pass\n", "labels.txt": "a\n"},
        source={"kind": "sklearn", "estimator": "Ridge", "versions": {"scikit-learn": "1.10"}},
        packages=("tokenizers",),
        golden=(golden(1.0, 0.75),),
    )
    found = compared(root)
    assert found.signature == (Change("output y", "y FP32 [batch, 1]", "y FP32 [batch, 2]"),)
    assert Change("instance_group[0].count", None, "2") in found.config
    assert found.files == (Change("labels.txt", None, "2 B, 87428fc5"),)
    assert found.source == (
        Change("packages", None, "tokenizers"),
        Change("scikit-learn", "1.9.1", "1.10"),
        Change("source estimator", "LinearRegression", "Ridge"),
    )
    assert {o.name: (o.largest, o.top1_agreement, o.equal) for o in found.golden} == {
        "y": (0.5, None, None),
        "scores": (0.5, 0.0, None),
        "label": (None, None, 0.0),
    }


def test_other_requests_cannot_be_compared(root: Path) -> None:
    notes: list[str] = []
    assert compare_golden((golden(1.0, 0.5),), (golden(2.0, 0.5),), notes) == ()
    assert "no golden request in common" in notes[0]


def test_a_version_made_by_hand_is_compared_by_its_files(root: Path) -> None:
    add_versions(root, by_hand=True)
    add_versions(root, files={"model.py": "raise\n"})
    found = compared(root)
    assert [c.name for c in found.files] == ["model.py"]
    assert found.notes == ("version 1 has no manifest: config, source and answers are not known",)


def test_a_graphs_operators_and_weights_are_compared(root: Path) -> None:
    weight, bias = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    add_versions(root, files={"model.onnx": identity()})
    add_versions(root, files={"model.onnx": affine(weight, bias)})
    found = compared(root)
    assert found.operators == (Change("Add", None, "2"), Change("Identity", "1", None), Change("MatMul", None, "1"))
    assert found.weights == (
        Change("all weights", "0 B in 0", "32 B in 2"),
        Change("bias", None, "FLOAT [2]"),
        Change("weight", None, "FLOAT [3, 2]"),
    )


def test_operators_of_subgraphs_and_other_domains_count(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    branch = helper.make_graph([helper.make_node("Inner", [], ["y"], domain="com.example")], "branch", [], out)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", [condition], out)).SerializeToString())
    assert read_graph(path).operators == {"If": 1, "com.example.Inner": 2}


def test_a_file_that_is_no_graph_is_a_note(root: Path) -> None:
    add_versions(root, files={"model.onnx": identity()})
    add_versions(root, files={"model.onnx": b"\xff" * 40})
    found = compared(root)
    assert [c.name for c in found.files] == ["model.onnx"]
    assert "cannot be read (model.onnx)" in found.notes[0]


def test_without_onnx_all_but_the_graph_is_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_versions(root, files={"model.onnx": identity()})
    add_versions(root, files={"model.onnx": identity(dims=("batch", 4))})
    monkeypatch.setitem(sys.modules, "onnx", None)  # as Python marks a module that is not there
    found = compared(root)
    assert [c.name for c in found.files] == ["model.onnx"]
    assert found.golden != ()
    assert "pip install" in found.notes[0]


def test_a_pipeline_is_compared_part_by_part(root: Path) -> None:
    add_pipeline(root, count=2)
    (root / "digits_model" / "2" / "model.py").write_text("raise\n")
    found = compare_parts(look(root), "digits", 1, 2)
    assert {part.model: part.same for part in found} == {
        "digits": True,
        "digits_preprocess": True,
        "digits_model": False,
    }


def test_a_part_without_the_version_is_a_note(root: Path) -> None:
    add_pipeline(root, count=2)
    (root / "digits_model" / "1").rename(root / "digits_model" / "7")
    found = compare_parts(look(root), "digits", 1, 2)
    assert {part.model: part.notes for part in found}["digits_model"] == ("model digits_model has no version 1",)


def test_a_canary_is_compared_with_what_serves(root: Path) -> None:
    add_versions(root)
    add_side_model(root, "spam", 2)
    assert [c.name for c in compared(root).files] == ["model.py"]


def test_a_version_that_is_not_there_is_an_error(root: Path) -> None:
    add_versions(root)
    with pytest.raises(RepositoryError, match="no version 2"):
        compared(root)


def test_a_configs_fields_have_names_a_person_finds() -> None:
    config = parse(
        'max_batch_size: 4 input { name: "x" dims: [1, -1] data_type: TYPE_FP32 } response_cache { } '
        'parameters { key: "k" value { string_value: "v" } } instance_group { kind: KIND_CPU gpus: [0] }'
        'ensemble_scheduling { step { model_name: "m" input_map { key: "a" value: "b" } } }'
    )
    assert fields_of(config) == {
        "max_batch_size": "4",
        "input[x].name": "x",
        "input[x].data_type": "TYPE_FP32",
        "input[x].dims": "[1, -1]",
        "response_cache": "{}",
        "parameters[k].string_value": "v",
        "instance_group[0].kind": "KIND_CPU",
        "instance_group[0].gpus": "[0]",
        "ensemble_scheduling.step[m].model_name": "m",
        "ensemble_scheduling.step[m].input_map[a]": "b",
    }


def run(root: Path, *words: str) -> Any:
    return CliRunner().invoke(diff, [*words, "--repository", str(root)], catch_exceptions=False)


def test_the_command_prints_tables_for_people(root: Path) -> None:
    add_versions(root)
    add_versions(root, files={"model.py": "raise\n"}, golden=(golden(1.0, 0.75),))
    result = run(root, "spam", "1", "2")
    assert result.stdout == ""
    words = " ".join(result.stderr.split())
    assert words.startswith("spam 1 -> 2 Files Version 1 Version 2 model.py 5 B, ")
    assert "y 0.5 - -" in words


def test_the_command_prints_one_document_for_programs(root: Path) -> None:
    add_pipeline(root, count=2)
    document = json.loads(run(root, "digits", "1", "2", "--json").stdout)
    assert (document["model"], document["before"], document["after"]) == ("digits", 1, 2)
    assert [part["same"] for part in document["parts"]] == [True, True, True]
