"""Rules R26 to R31: for each a repository that breaks it alone, and one that does not.

That tritonserver 2.51 refuses what is an error here (and takes the rest) was tried on the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from conch.lint import Finding
from conch.lint.context import Context
from conch.lint.ensemble_rules import inflight_limit
from conch.lint.model import RootFolder
from conch.releases import Release
from tests.fakes.lint_repositories import FLOAT, INT64, findings, found, onnx, onnx_model, python_model, write

MODEL = """
name: "NAME"
backend: "python"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
"""
STEP = """
  step {
    model_name: "MEMBER"
    model_version: -1
    input_map { key: "a" value: "FROM" }
    output_map { key: "b" value: "TO" }
  }
"""


def step(member: str, source: str, target: str, version: int = -1) -> str:
    """One step of an ensemble: member.a reads ``source``, member.b is written to ``target``."""
    text = STEP.replace("MEMBER", member).replace("FROM", source).replace("TO", target)
    return text.replace("-1", str(version), 1)


def ensemble(root: Path, *steps: str, name: str = "all", more: str = "", batch: int = 8, limit: str = "") -> Path:
    """An ensemble x FP32 [4] -> y FP32 [4]."""
    config = f"""
        name: "{name}" platform: "ensemble" max_batch_size: {batch}
        input {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }}
        output {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }}
        {more}
        ensemble_scheduling {{ {limit} {"".join(steps)} }}
    """
    return write(root / name, {"config.pbtxt": config, "1": None})


def two(root: Path, **options: str) -> Path:
    """Members one and two, and an ensemble that runs one after the other."""
    for name in ("one", "two"):
        python_model(root, name, MODEL)
    return ensemble(root, step("one", "x", "between"), step("two", "between", "y"), **options)  # type: ignore[arg-type]


def only(root: Path, **options: object) -> Finding:
    """The one finding of a repository."""
    (finding,) = findings(root, **options)
    return finding


def test_an_ensemble_without_a_fault(tmp_path: Path) -> None:
    two(tmp_path)
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ('backend: "python"', "backend"),
        ("instance_group { count: 2 }", "instance_group"),
        ("optimization { graph { level: 1 } }", "optimization"),
        ('model_warmup { name: "w" batch_size: 1 }', "model_warmup"),
    ],
)
def test_settings_that_only_a_model_has(tmp_path: Path, more: str, place: str) -> None:
    two(tmp_path, more=more)
    assert (only(tmp_path).rule, only(tmp_path).place, only(tmp_path).model) == ("R26", place, "all")


@pytest.mark.parametrize("more", ["response_cache { enable: true }", "version_policy { all { } }", "metric_tags { }"])
def test_settings_that_an_ensemble_may_have(tmp_path: Path, more: str) -> None:
    two(tmp_path, more=more)
    assert found(tmp_path) == []


def test_steps_without_the_platform(tmp_path: Path) -> None:
    config = two(tmp_path) / "config.pbtxt"
    config.write_text(config.read_text().replace('platform: "ensemble"', ""))
    assert (only(tmp_path).rule, only(tmp_path).place) == ("R26", "platform")


def test_the_platform_without_steps(tmp_path: Path) -> None:
    config = two(tmp_path) / "config.pbtxt"
    text = config.read_text()
    config.write_text(text[: text.index("ensemble_scheduling")])
    assert (only(tmp_path).rule, only(tmp_path).place) == ("R26", "ensemble_scheduling")


def test_types_that_differ_along_an_edge(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "two", MODEL.replace("TYPE_FP32", "TYPE_INT64", 1))

    finding = only(tmp_path)

    assert (finding.rule, finding.severity) == ("R27", "error")
    assert finding.place == "all: one.b FP32 [4] -> two.a INT64 [4]"
    assert "types differ" in finding.message


def test_shapes_that_differ_along_an_edge(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "one", MODEL.replace("[ 4 ] }\n", "[ 1, 28, 28 ] }\n").replace("1, 28, 28", "4", 1))
    python_model(tmp_path, "two", MODEL.replace("[ 4 ]", "[ 784 ]", 1))

    finding = only(tmp_path)

    assert finding.place == "all: one.b FP32 [1,28,28] -> two.a FP32 [784]"
    assert (finding.rule, "shapes differ" in finding.message) == ("R27", True)


@pytest.mark.parametrize(
    ("index", "place"), [(0, "all: all.x FP32 [4] -> one.a FP32 [5]"), (1, "two.b FP32 [5] -> all.y")]
)
def test_the_ensembles_own_ends_are_edges_too(tmp_path: Path, index: int, place: str) -> None:
    two(tmp_path)
    name, first = ("one", True) if index == 0 else ("two", False)
    changed = MODEL.replace("[ 4 ]", "[ 5 ]", 1) if first else "[ 5 ]".join(MODEL.rsplit("[ 4 ]", 1))
    python_model(tmp_path, name, changed)
    assert place in only(tmp_path).place


@pytest.mark.parametrize("dims", ["-1", "4"])
def test_variable_dims_fit_any(tmp_path: Path, dims: str) -> None:
    two(tmp_path)
    python_model(tmp_path, "two", MODEL.replace("[ 4 ]", f"[ {dims} ]", 1))
    assert found(tmp_path) == []


@pytest.mark.parametrize(("dims", "rules"), [("-1, 4", []), ("8, 4", []), ("-1, 5", ["R27"]), ("4", [])])
def test_a_member_without_batches_has_the_whole_shape(tmp_path: Path, dims: str, rules: list[str]) -> None:
    python_model(tmp_path, "one", MODEL.replace("max_batch_size: 8", "max_batch_size: 0").replace("4", dims))
    ensemble(tmp_path, step("one", "x", "y"))
    assert sorted(set(found(tmp_path))) == rules


def test_the_ensembles_reshape_is_what_its_members_see(tmp_path: Path) -> None:
    python_model(tmp_path, "one", MODEL.replace("dims: [ 4 ]", "dims: [ 2, 2 ]"))
    config = ensemble(tmp_path, step("one", "x", "y")) / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 4 ]", "dims: [ 4 ] reshape { shape: [ 2, 2 ] }"))
    assert found(tmp_path) == []


def test_a_member_whose_signature_is_in_its_onnx_file(tmp_path: Path) -> None:
    graph = onnx({"a": (INT64, ["n", 4])}, {"b": (FLOAT, ["n", 4])})
    onnx_model(tmp_path, "one", 'name: "NAME" backend: "onnxruntime" max_batch_size: 8', graph)
    ensemble(tmp_path, step("one", "x", "y"))
    places = [f.place for f in findings(tmp_path) if f.rule == "R27"]
    assert places == ["all: all.x FP32 [4] -> one.a INT64 [4]"]


def test_nothing_is_concluded_from_a_member_that_triton_completes(tmp_path: Path) -> None:
    python_model(tmp_path, "one", 'backend: "python"')
    ensemble(tmp_path, step("one", "x", "y"))
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("steps", "place", "message"),
    [
        ([("one", "x", "y"), ("two", "x", "y")], "all: y", "written twice"),
        ([("one", "x", "between"), ("two", "betwen", "y")], "all: ? -> two.a", "nothing writes it"),
        ([("one", "x", "y"), ("two", "x", "z")], "all: two.b -> ?", "not used"),
        ([("one", "x", "between"), ("two", "between", "z")], "all: ? -> output y", "nothing writes it"),
        ([("one", "y", "y")], "all: input x -> ?", "not used"),
        ([("one", "z", "y"), ("two", "y", "z")], "all: one, two", "circle"),
        ([("on", "x", "y")], "step[on].model_name", "not there"),
    ],
)
def test_tensors_that_are_wired_wrongly(
    tmp_path: Path, steps: list[tuple[str, str, str]], place: str, message: str
) -> None:
    two(tmp_path)
    ensemble(tmp_path, *(step(*s) for s in steps))

    result = findings(tmp_path)

    assert {f.rule for f in result} == {"R27"}
    assert any(f.place == place and message in f.message and f.severity == "error" for f in result)


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    two(tmp_path)
    ensemble(tmp_path, step("one", "x", "between"), step("two", "betwen", "y"))
    fixes = [f.fix for f in findings(tmp_path) if "nothing writes" in f.message]
    assert fixes == ["did you mean between?"]


def test_writing_over_the_ensembles_input_is_taken_by_triton(tmp_path: Path) -> None:
    two(tmp_path)
    ensemble(tmp_path, step("one", "x", "x"), step("two", "x", "y"))
    assert (only(tmp_path).rule, only(tmp_path).severity) == ("R27", "warning")


MORE = MODEL.replace("output", 'input { name: "extra" data_type: TYPE_FP32 dims: [ 1 ] OPTIONAL }\noutput', 1)


def test_an_input_that_is_left_unmapped(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "two", MORE.replace("OPTIONAL", ""))
    finding = only(tmp_path)
    assert (finding.rule, finding.place) == ("R27", "all: ? -> two.extra")
    assert 'key: "extra"' in finding.fix


def test_an_optional_input_may_be_left_unmapped(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "two", MORE.replace("OPTIONAL", "optional: true"))
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('input_map { key: "a"', 'input_map { key: "b"', "step[two].input_map[b]"),
        ('output_map { key: "b"', 'output_map { key: "a"', "step[two].output_map[a]"),
    ],
)
def test_a_map_with_a_name_that_the_member_does_not_have(tmp_path: Path, old: str, new: str, place: str) -> None:
    config = two(tmp_path) / "config.pbtxt"
    head, tail = config.read_text().rsplit(old, 1)
    config.write_text(head + new + tail)
    result = findings(tmp_path)
    assert {f.rule for f in result} == {"R27"}
    assert place in {f.place for f in result}


def test_a_step_that_maps_nothing(tmp_path: Path) -> None:
    two(tmp_path)
    ensemble(tmp_path, step("one", "x", "y"), 'step { model_name: "two" model_version: -1 }')
    assert {"step[two].input_map", "step[two].output_map"} <= {f.place for f in findings(tmp_path)}


def test_a_member_in_a_namespace_of_its_own_is_not_looked_for(tmp_path: Path) -> None:
    python_model(tmp_path, "one", MODEL.replace("[ 4 ]", "[ 5 ]"))  # another model of that name
    ensemble(tmp_path, step("one", "x", "y").replace("model_version", 'model_namespace: "other" model_version'))
    assert found(tmp_path) == []


def test_a_member_in_another_root(tmp_path: Path) -> None:
    python_model(tmp_path / "members", "one", MODEL)
    ensemble(tmp_path / "ensembles", step("one", "x", "y"))
    assert found([tmp_path / "members", tmp_path / "ensembles"]) == []
    assert found(tmp_path / "ensembles") == ["R27"]


@pytest.mark.parametrize(("batch", "rules"), [(8, []), (4, []), (9, ["R28"])])
def test_larger_batches_than_a_member_takes(tmp_path: Path, batch: int, rules: list[str]) -> None:
    python_model(tmp_path, "one", MODEL)
    ensemble(tmp_path, step("one", "x", "y"), batch=batch)
    assert found(tmp_path) == rules


def pinned(root: Path, number: int, versions: str, policy: str = "") -> None:
    """An ensemble with a step pinned to a version of a member that has these versions."""
    python_model(root, "one", MODEL + policy, versions=versions.split())
    ensemble(root, step("one", "x", "y", number))


@pytest.mark.parametrize(
    ("number", "versions", "policy", "severity"),
    [
        (1, "1 2", "", "error"),
        (3, "1 2", "version_policy { all { } }", "error"),
        (1, "1 2", "version_policy { specific { versions: [ 2 ] } }", "error"),
        (0, "1", "", "error"),
        (2, "1 2", "", "warning"),
        (1, "1 2", "version_policy { latest { num_versions: 2 } }", "warning"),
    ],
)
def test_pins_that_do_not_hold(tmp_path: Path, number: int, versions: str, policy: str, severity: str) -> None:
    pinned(tmp_path, number, versions, policy)
    finding = only(tmp_path)
    assert (finding.rule, finding.severity, finding.place) == ("R29", severity, "step[one].model_version")
    assert "model_version: -1" in finding.fix


def test_a_step_without_a_version_is_told_what_that_means(tmp_path: Path) -> None:
    pinned(tmp_path, 0, "1")
    assert "stands for version 0" in only(tmp_path).message


@pytest.mark.parametrize(
    ("number", "policy"),
    [
        (-1, ""),
        (1, "version_policy { all { } }"),
        (1, "version_policy { specific { versions: [ 1, 2 ] } }"),
        (2, "version_policy { latest { num_versions: 2 } }"),
    ],
)
def test_pins_that_hold(tmp_path: Path, number: int, policy: str) -> None:
    pinned(tmp_path, number, "1 2", policy)
    assert found(tmp_path) == []


CACHE = "response_cache { enable: true }\n"
DECOUPLED = "model_transaction_policy { decoupled: true }\n"
SEQUENCES = "sequence_batching { direct { } }\n"


@pytest.mark.parametrize("policy", [DECOUPLED, SEQUENCES])
def test_a_cache_that_triton_refuses(tmp_path: Path, policy: str) -> None:
    python_model(tmp_path, "one", MODEL + CACHE + policy)
    assert (only(tmp_path).rule, only(tmp_path).severity) == ("R30", "error")


@pytest.mark.parametrize(("policy", "severity"), [(DECOUPLED, "error"), (SEQUENCES, "warning")])
def test_a_cache_over_such_a_member(tmp_path: Path, policy: str, severity: str) -> None:
    python_model(tmp_path, "one", MODEL + policy)
    ensemble(tmp_path, step("one", "x", "y"), more=CACHE)
    assert (only(tmp_path).rule, only(tmp_path).severity, only(tmp_path).model) == ("R30", severity, "all")


@pytest.mark.parametrize("policy", ["", CACHE, DECOUPLED, SEQUENCES, DECOUPLED + "response_cache { enable: false }"])
def test_a_cache_that_may_be(tmp_path: Path, policy: str) -> None:
    python_model(tmp_path, "one", MODEL + policy)
    assert found(tmp_path) == []


def test_a_decoupled_member_that_nothing_holds_back(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "one", MODEL + DECOUPLED)
    finding = only(tmp_path)
    # The default target has no setting that could mend it.
    assert (finding.rule, finding.severity, finding.place) == ("R31", "note", "step[one]")
    assert "max_inflight_requests" not in finding.fix


def test_a_limit_that_the_target_does_not_know(tmp_path: Path) -> None:
    two(tmp_path, limit="max_inflight_requests: 4")
    python_model(tmp_path, "one", MODEL + DECOUPLED)
    finding = only(tmp_path)
    assert (finding.rule, finding.severity) == ("R31", "error")
    assert finding.place == "ensemble_scheduling.max_inflight_requests"


@pytest.mark.parametrize(("limit", "severities"), [("", [None]), ("max_inflight_requests: 4", [])])
def test_a_target_that_knows_the_limit(tmp_path: Path, limit: str, severities: list[object]) -> None:
    two(tmp_path, limit=limit)
    python_model(tmp_path, "one", MODEL + DECOUPLED)
    root = RootFolder(tmp_path)
    models = {m.name: m for m in root.models}
    context = Context(release=Release("25.12", "2.64.0", "1.23.0", 10, 21), roots=(root,), models=models)

    faults = list(inflight_limit(models["all"], context))

    assert [f.severity for f in faults] == severities
    assert all("max_inflight_requests: 16" in f.fix for f in faults)


def test_a_decoupled_member_at_the_end_waits_for_nobody(tmp_path: Path) -> None:
    two(tmp_path)
    python_model(tmp_path, "two", MODEL + DECOUPLED)
    assert found(tmp_path) == []
