"""The loop of a sweep, with a server and measurements that are made up; and what a scratch server is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from conch.errors import ConchError, ModelLoadError
from conch.model_config import ModelConfig, parse
from conch.repository import Repository
from perf.points import Load, Machine, Point
from perf.sweep import record
from perf.sweep.plan import Plan
from perf.sweep.run import carry_out, check_same_machine
from perf.sweep.target import Serving, joined, scaled_model, show_version, with_instances
from server.tiny_models import record as record_manifests
from server.tiny_models import write_pipeline, write_single

MACHINE = Machine("a cpu", 2, 8.0, "3.11", "2.51.0", "Linux")
PLAN = Plan(Load("spam", concurrency=1), (1, 8), (1, 4), (1, 2), "spam")
SWEEP = record.Sweep("spam", "2026-01-02T03:04:05+00:00", PLAN, MACHINE)


class MadeUpTarget:
    """Serves any number of instances but those that it is told not to."""

    def __init__(self, broken: int | None = None, version: str = "3", config: str = "config") -> None:
        self.broken, self.version, self.config = broken, version, config

    def at(self, instances: int | None) -> Serving:
        if instances == self.broken:
            raise ModelLoadError("too many instances")
        return Serving("grpc://here", "http://here", self.version, f"{self.config} {instances}")


def made_up(load: Load, url: str) -> Point:
    assert url == "grpc://here"
    return Point(load, 100.0, 100.0 * load.batch_size, {"p50": 1.0, "p99": 2.0})


def failing_at(*failing: int, kind: Callable[[str], Exception] = ConchError) -> Callable[[Load, str], Point]:
    def measure(load: Load, url: str) -> Point:
        if load.concurrency in failing:
            raise kind("the queue is full")
        return made_up(load, url)

    return measure


def test_every_combination_is_measured_and_saved(tmp_path: Path):
    steps = list(carry_out(SWEEP, MadeUpTarget(), made_up, tmp_path))
    assert [step.cell for step in steps] == list(PLAN.cells)
    done = record.read(tmp_path)
    assert done == steps[-1].sweep
    assert set(done.measured) == set(PLAN.cells)
    assert [run.result.config_text for run in done.runs] == ["config 1", "config 2"]


def test_each_point_is_on_disk_before_the_next_is_measured(tmp_path: Path):
    for number, step in enumerate(carry_out(SWEEP, MadeUpTarget(), made_up, tmp_path), 1):
        assert len(record.read(tmp_path).measured) == number
        assert record.read(tmp_path) == step.sweep


@pytest.mark.parametrize("kind", [ConchError, OSError])
def test_a_combination_that_fails_is_kept_with_its_reason(tmp_path: Path, kind: type[Exception]):
    *_, last = carry_out(SWEEP, MadeUpTarget(), failing_at(8, kind=kind), tmp_path)
    assert {cell.concurrency for cell in last.sweep.measured} == {1}
    assert {failed.cell.concurrency for failed in last.sweep.failed} == {8}
    assert "the queue is full" in last.sweep.failed[0].error
    assert not last.sweep.left


def test_instances_that_do_not_load_fail_alone(tmp_path: Path):
    *_, last = carry_out(SWEEP, MadeUpTarget(broken=1), made_up, tmp_path)
    assert {cell.instances for cell in last.sweep.measured} == {2}
    assert len(last.sweep.failed) == 4


def test_an_interruption_keeps_what_was_measured_and_the_rest_is_measured_later(tmp_path: Path):
    steps = carry_out(SWEEP, MadeUpTarget(), failing_at(8, kind=KeyboardInterrupt), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(steps)
    kept = record.read(tmp_path)
    assert list(kept.measured) == [PLAN.cells[0]]
    measured_later = [step.cell for step in carry_out(kept, MadeUpTarget(), made_up, tmp_path)]
    assert measured_later == list(PLAN.cells[1:])
    assert not record.read(tmp_path).left


@pytest.mark.parametrize("target", [MadeUpTarget(version="4"), MadeUpTarget(config="other")])
def test_points_of_another_model_are_not_mixed_in(tmp_path: Path, target: MadeUpTarget):
    first = next(carry_out(SWEEP, MadeUpTarget(), made_up, tmp_path)).sweep
    with pytest.raises(ConchError, match="not what it was"):
        list(carry_out(first, target, made_up, tmp_path))
    assert record.read(tmp_path) == first


def test_nor_are_points_of_another_machine():
    check_same_machine(SWEEP, MACHINE)
    with pytest.raises(ConchError, match="another machine"):
        check_same_machine(SWEEP, dataclasses.replace(MACHINE, cores=64))


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ("", "KIND_AUTO"),
        ("instance_group { count: 3 kind: KIND_CPU }", "KIND_CPU"),
        ("instance_group { kind: KIND_CPU } instance_group { kind: KIND_MODEL }", "KIND_CPU"),
    ],
)
def test_the_instances_are_those_asked_for(before: str, kind: str):
    config = parse(f'name: "x" {before}')
    changed = with_instances(config, 5)
    (group,) = changed.instance_group
    assert group.count == 5
    assert group.Kind.Name(group.kind) == kind
    assert config == parse(f'name: "x" {before}')


@pytest.fixture
def live(tmp_path: Path) -> Repository:
    root = tmp_path / "live"
    for k in (1, 2):
        write_single(root, "tiny", k, k)
        record_manifests(root, "tiny", k, k)
        write_pipeline(root, "pipe", k, k)
        record_manifests(root, "pipe", k, k)
    return Repository(root)


@pytest.mark.parametrize(
    ("name", "member", "found"),
    [("tiny", None, "tiny"), ("pipe", None, "pipe_model"), ("pipe", "pipe_preprocess", "pipe_preprocess")],
)
def test_whose_instances_are_changed(live: Repository, name: str, member: str | None, found: str):
    assert scaled_model(live, name, member) == found


def test_a_member_that_is_none_is_refused_with_the_nearest(live: Repository):
    with pytest.raises(ConchError, match="no member") as error:
        scaled_model(live, "pipe", "pipe_preproces")
    assert "pipe_preprocess" in str(error.value.fix)


@pytest.mark.parametrize(("own", "batch"), [(True, 8), (False, 4)])
def test_one_version_alone_is_shown_by_its_own_config_or_the_live_one(
    live: Repository, tmp_path: Path, own: bool, batch: int
):
    config = live.root / "tiny/config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))
    view = Repository(tmp_path / "view")
    show_version(live, "tiny", 1, view.root, own_config=own)
    assert view.versions("tiny") == [1]
    assert view.config("tiny").max_batch_size == batch
    assert (view.root / "tiny/1").resolve() == live.root / "tiny/1"


def test_a_pipelines_members_are_shown_in_the_same_version(live: Repository, tmp_path: Path):
    config = live.root / "pipe/config.pbtxt"  # pinned to the version that serves
    config.write_text(config.read_text().replace("model_version: -1", "model_version: 2"))
    view = Repository(tmp_path / "view")
    show_version(live, "pipe", 1, view.root, own_config=False)
    assert {name: view.versions(name) for name in view.model_names()} == {
        name: [1] for name in ("pipe", "pipe_model", "pipe_postprocess", "pipe_preprocess")
    }
    assert all(step.model_version == -1 for step in view.config("pipe").ensemble_scheduling.step)


def test_a_version_that_is_not_there_is_refused(live: Repository, tmp_path: Path):
    with pytest.raises(ConchError, match="no version 9"):
        show_version(live, "tiny", 9, tmp_path / "view", own_config=False)


def test_the_configs_of_a_pipeline_are_one_text_with_its_own_first():
    configs = {"a_model": ModelConfig(name="a_model"), "a": ModelConfig(name="a")}
    text = joined(configs, "a")
    assert text.index("# a/config.pbtxt") < text.index("# a_model/config.pbtxt")
    assert joined({"a": ModelConfig(name="a")}, "a").startswith('name: "a"')
