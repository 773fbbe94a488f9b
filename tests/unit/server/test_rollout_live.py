"""A server as a switch sees it, with a control that plays back what a server says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from conch.errors import ModelLoadError, ServerError
from conch.model_config import ModelConfig, ModelConfigMessage
from conch.repository import Repository
from conch.switching.policy import with_versions
from server.http_api import ModelState
from server.rollout.live import ExplicitServer, PollServer, agrees
from tests.fakes.versioned_models import ensemble_config, member_config, stage_single

Look = Sequence[tuple[str, str, str]]


class Scripted:
    """Says one look after the other, the last for ever; remembers what it was told to do."""

    url = "grpc://nowhere"

    def __init__(self, config: ModelConfigMessage, *looks: Look) -> None:
        self._config = config
        self._looks = iter(looks)
        self._last: Look = ()
        self.told: list[str] = []

    def index(self) -> list[ModelState]:
        self._last = next(self._looks, self._last)
        return [ModelState("m", *row) for row in self._last]

    def config(self, name: str) -> ModelConfigMessage:
        return self._config

    def load(self, name: str) -> None:
        self.told.append(f"load {name}")

    def unload(self, name: str) -> None:
        self.told.append(f"unload {name}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository = Repository(tmp_path / "models")
    for k in (1, 2):
        with repository.stage() as stage:
            stage_single(stage, k)
            stage.commit()
    return repository.root


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.rollout.live.LOOK_EVERY_S", 0.001)


OLD = [("1", "READY", "")]
LOADING = [("1", "READY", ""), ("2", "LOADING", "")]
BOTH = [("1", "READY", ""), ("2", "READY", "")]
NEW = [("1", "UNLOADING", ""), ("2", "READY", "")]
FAILED = [("1", "READY", ""), ("2", "UNAVAILABLE", "no such file")]


def test_it_waits_until_the_new_version_serves_alone(root: Path) -> None:
    control = Scripted(member_config("m", 2), OLD, OLD, LOADING, BOTH, NEW)
    PollServer(control).take(root, ["m"])  # type: ignore[arg-type]
    assert control.index()[0].state == "UNLOADING"
    assert control.told == []


def test_it_waits_for_the_config_too(root: Path) -> None:
    control = Scripted(member_config("m", 1), NEW)
    with pytest.raises(ServerError, match="did not take the change of m"):
        PollServer(control, patience_s=0.05).take(root, ["m"])  # type: ignore[arg-type]


def test_a_failed_load_is_told_with_its_reason(root: Path) -> None:
    control = Scripted(member_config("m", 2), OLD, LOADING, FAILED)
    with pytest.raises(ModelLoadError, match="model m version 2 did not load") as failed:
        PollServer(control).take(root, ["m"])  # type: ignore[arg-type]
    assert failed.value.got == "no such file"


def test_an_old_failure_is_not_taken_for_a_new_one(root: Path) -> None:
    control = Scripted(member_config("m", 2), FAILED, FAILED, FAILED, LOADING, NEW)
    PollServer(control).take(root, ["m"])  # type: ignore[arg-type]


def test_a_model_that_loads_for_long_is_waited_for(root: Path) -> None:
    control = Scripted(member_config("m", 2), OLD, *[LOADING] * 700, NEW)
    PollServer(control, patience_s=0.5).take(root, ["m"])  # type: ignore[arg-type]


def test_a_server_in_explicit_control_is_told(root: Path) -> None:
    control = Scripted(member_config("m", 2), OLD, BOTH, NEW)
    ExplicitServer(control).take(root, ["m"])  # type: ignore[arg-type]
    assert control.told == ["load m"]


def test_a_model_that_the_index_no_longer_shows_is_unloaded_all_the_same() -> None:
    """Its folder is gone from the repository, so the index leaves it out, while it still runs."""
    control = Scripted(member_config("m", 2), [])
    ExplicitServer(control).remove("m")  # type: ignore[arg-type]
    assert control.told == ["unload m"]


def completed(config: ModelConfigMessage) -> ModelConfigMessage:
    """As Triton tells it: the default policy and instance groups written out."""
    copy = ModelConfig()
    copy.CopyFrom(config)
    if not copy.HasField("version_policy"):
        copy.version_policy.latest.num_versions = 1
    copy.instance_group.add(name="m", count=1)
    return copy


ENSEMBLE = ensemble_config("p", 1, ["a", "b"])


@pytest.mark.parametrize(
    ("wanted", "served", "same"),
    [
        (member_config("m", 1), completed(member_config("m", 1)), True),
        (member_config("m", 1), completed(member_config("m", 2)), False),
        (member_config("m", 1), completed(ModelConfig(name="m")), False),
        # Triton does not tell of a policy that loads nothing new (tritonserver 2.51).
        (with_versions(member_config("m", 1), [1]), completed(member_config("m", 1)), True),
        (ENSEMBLE, completed(ENSEMBLE), True),
        (ENSEMBLE, completed(ensemble_config("p", 1, ["a", "b.v2.next"])), False),
    ],
)
def test_a_served_config_agrees_with_a_file_that_it_completes(
    wanted: ModelConfigMessage, served: ModelConfigMessage, same: bool
) -> None:
    assert agrees(wanted, served) is same
