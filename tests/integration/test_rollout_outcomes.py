"""What publishing, going back and canaries come to on a real server, and what is left of those that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients import Client
from conch import ledger
from conch.errors import ModelLoadError, RepositoryError
from conch.repository import Repository
from conch.switching.locks import Busy
from server.rollout.activate import activate
from server.rollout.live import ExplicitServer, PollServer, connect
from server.rollout.switch import Switched, complete, publish, side_by_side, take_down
from server.under_load import Load
from tests.conftest import StartServer, Triton
from tests.fakes.tiny_stages import code_version, stage_telling, stage_telling_pipeline, told_version
from tests.fakes.versioned_models import tree

pytestmark = pytest.mark.integration

Live = ExplicitServer | PollServer
STAGES = {"single": stage_telling, "pipeline": stage_telling_pipeline}


def agree(name: str, version: int) -> None:
    """A check that finds all well."""


@pytest.fixture
def live(triton: Triton) -> Iterator[Live]:
    with connect(triton.grpc_url) as live:
        yield live


@pytest.fixture
def repository(triton: Triton) -> Repository:
    return Repository(triton.repository)


def put(
    repository: Repository,
    live: Live,
    kind: str,
    name: str,
    k: int,
    verify: Callable[[str, int], None] = agree,
    *,
    config_k: int | None = None,
    broken: bool = False,
    keep_loaded: bool = False,
) -> Switched:
    with repository.stage() as stage:
        STAGES[kind](stage, name, k, config_k=config_k, broken=broken)
        return publish(stage, live, verify=verify, keep_loaded=keep_loaded)


def served(url: str, name: str, version: str = "") -> str:
    with Client(url, retries=0) as client:
        return told_version(client.infer(name, {"x": [[1.0]]}, version=version or None))


def of(repository: Repository, name: str) -> dict[str, str]:
    return {path: text for path, text in tree(repository.root).items() if path.startswith(name)}


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_a_version_that_does_not_load_leaves_files_and_serving_as_they_were(
    triton: Triton, repository: Repository, live: Live, kind: str
) -> None:
    name = f"unloadable_{kind}"
    put(repository, live, kind, name, 1)
    before = of(repository, name)
    with Load([triton.grpc_url], name, {"x": [[1.0]]}, told_version, clients_per_url=1) as load:
        with pytest.raises(ModelLoadError, match="did not load") as failed:
            put(repository, live, kind, name, 2, broken=True)
        assert "this model is broken" in str(failed.value)
    assert (load.report().failed, load.report().versions) == (0, ("1",))
    assert of(repository, name) == before
    assert live.served(name) == [1]
    assert put(repository, live, kind, name, 2).version == 2
    assert served(triton.grpc_url, name) == "2"


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_a_version_that_is_found_wrong_is_taken_back(
    triton: Triton, repository: Repository, live: Live, kind: str
) -> None:
    name = f"wrong_{kind}"
    put(repository, live, kind, name, 1)
    before = of(repository, name)
    asked = []

    def find_wrong(name: str, version: int) -> None:
        asked.append((name, version, served(triton.grpc_url, name)))
        raise RepositoryError("it answers wrongly")

    with (
        Load([triton.grpc_url], name, {"x": [[1.0]]}, told_version, clients_per_url=1) as load,
        pytest.raises(RepositoryError, match="it answers wrongly"),
    ):
        put(repository, live, kind, name, 2, find_wrong)
    assert asked == [(name, 2, "2")]  # the live server had switched when it was asked
    assert (load.report().failed, load.report().mixed) == (0, 0)
    assert of(repository, name) == before
    assert served(triton.grpc_url, name) == "1"
    assert not [n for n in live.loaded_models() if n.startswith(name) and ".v" in n]
    assert (
        name not in ledger.read(repository.root).history or ledger.read(repository.root).history[name][-1].version == 1
    )


def test_a_new_model_that_is_found_wrong_is_gone(triton: Triton, repository: Repository, live: Live) -> None:
    def find_wrong(name: str, version: int) -> None:
        raise RepositoryError("it answers wrongly")

    with pytest.raises(RepositoryError, match="it answers wrongly"):
        put(repository, live, "pipeline", "never", 1, find_wrong)
    assert of(repository, "never") == {}
    assert not [n for n in live.loaded_models() if n.startswith("never")]


def test_ensembles_that_use_a_model_are_asked_too(triton: Triton, repository: Repository, live: Live) -> None:
    put(repository, live, "pipeline", "used", 1)
    asked = []

    def find_ensemble_wrong(name: str, version: int) -> None:
        asked.append((name, version))
        if name == "used":
            raise RepositoryError("the ensemble answers wrongly")

    with pytest.raises(RepositoryError, match="the ensemble answers wrongly"):
        put(repository, live, "single", "used_model", 7, find_ensemble_wrong)
    assert asked == [("used_model", 2), ("used", 1)]
    assert served(triton.grpc_url, "used") == "1"


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_of_two_publishers_one_wins_and_the_other_is_told(
    triton: Triton, repository: Repository, live: Live, kind: str
) -> None:
    name = f"raced_{kind}"
    put(repository, live, kind, name, 1)
    inside, go_on = threading.Event(), threading.Event()

    def wait(name: str, version: int) -> None:
        inside.set()
        go_on.wait(30)

    winner = threading.Thread(target=put, args=(repository, live, kind, name, 2, wait))
    winner.start()
    try:
        assert inside.wait(30)
        with pytest.raises(Busy, match=f"a publish of {name}.* runs already"):
            put(repository, live, kind, name, 3)
    finally:
        go_on.set()
        winner.join()
    assert served(triton.grpc_url, name) == "2"
    assert put(repository, live, kind, name, 3).version == 3


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_going_back_to_a_version_that_is_loaded_takes_no_load(
    triton: Triton, repository: Repository, live: Live, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"kept_{kind}"
    put(repository, live, kind, name, 1, config_k=1)
    put(repository, live, kind, name, 2, config_k=1, keep_loaded=True)
    assert live.served(name) == [1, 2]
    with Load([triton.http_url, triton.grpc_url], name, {"x": [[1.0]]}, code_version) as load:
        begun = time.monotonic()
        with load.update():
            activate(repository, name, 1, live, agree, by="rollback")
        took_s = time.monotonic() - begun
        assert load.wait_for("1")
    report = load.report()
    with capsys.disabled():
        print(f"\nrollback of a kept {kind} under load: {took_s:.2f} s\n{report}")
    assert (report.failed, report.mixed, report.turns(0)) == (0, 0, ("2", "1")), report.failures
    assert took_s < 5  # the promise is 1 s, on a machine that does nothing else
    assert ledger.read(repository.root).held[name].version == 1
    # Held: a version that comes meanwhile changes nothing. The next publish lets go.
    assert "specific" in (repository.root / name / "config.pbtxt").read_text()
    put(repository, live, kind, name, 3, config_k=1)
    assert "specific" not in (repository.root / name / "config.pbtxt").read_text()
    assert ledger.read(repository.root).held == {
        k: v for k, v in ledger.read(repository.root).held.items() if name not in k
    }
    assert [s.version for s in ledger.read(repository.root).history[name]] == [1, 2, 1, 3]


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_a_rollback_brings_the_old_config_back_and_promote_the_new(
    triton: Triton, repository: Repository, live: Live, kind: str
) -> None:
    name = f"back_{kind}"
    put(repository, live, kind, name, 1)
    put(repository, live, kind, name, 2)
    before = of(repository, name)
    with Load([triton.http_url, triton.grpc_url], name, {"x": [[1.0]]}, told_version, clients_per_url=1) as load:
        activate(repository, name, 1, live, agree, by="rollback")
        assert load.wait_for("1")
        activate(repository, name, 2, live, agree, by="promote")
        assert load.wait_for("2")
    assert (load.report().failed, load.report().mixed) == (0, 0), load.report().failures
    assert of(repository, name) == before
    assert name not in ledger.read(repository.root).held


@pytest.mark.parametrize("kind", ["single", "pipeline"])
def test_a_canary_answers_beside_what_serves_until_it_is_promoted(
    triton: Triton, repository: Repository, live: Live, kind: str
) -> None:
    name = f"sung_{kind}"
    put(repository, live, kind, name, 1)
    before = of(repository, name)
    with repository.stage() as stage:
        STAGES[kind](stage, name, 2)
        canary = side_by_side(stage, live, verify=agree)
    assert (canary.name, canary.version, canary.model) == (name, 2, f"{name}.v2")
    assert (served(triton.grpc_url, name), served(triton.grpc_url, canary.model)) == ("1", "2")
    assert {p: t for p, t in of(repository, name).items() if ".v2" not in p} == before
    with Load([triton.grpc_url], name, {"x": [[1.0]]}, told_version, clients_per_url=1) as load:
        done = complete(repository, name, 2, live, verify=agree)
    assert (done.version, done.previous) == (2, 1)
    assert (load.report().failed, load.report().mixed) == (0, 0)
    assert served(triton.grpc_url, name) == "2"
    assert not [n for n in live.loaded_models() if n.startswith(name) and ".v" in n]
    assert not [p.name for p in repository.root.iterdir() if p.name.startswith(name) and ".v" in p.name]


def test_a_canary_is_taken_down(triton: Triton, repository: Repository, live: Live) -> None:
    put(repository, live, "pipeline", "silenced", 1)
    with repository.stage() as stage:
        stage_telling_pipeline(stage, "silenced", 2)
        side_by_side(stage, live, verify=agree)
    # What is published meanwhile takes a number of its own.
    assert put(repository, live, "pipeline", "silenced", 3).version == 3
    assert take_down(repository, "silenced", 2, live) == ("silenced.v2", "silenced_model.v2")
    assert not [n for n in live.loaded_models() if n.startswith("silenced") and ".v" in n]
    assert served(triton.grpc_url, "silenced") == "3"


def test_a_server_that_polls(tmp_path: Path, start_server: StartServer) -> None:
    """A failed load is noticed, going back works, and a plain drop of a version folder still does."""
    repository = Repository(tmp_path / "models")
    with repository.stage() as stage:
        stage_telling(stage, "m", 1)
        stage.commit()
    server = start_server(repository.root, control="poll", poll_interval_s=1)
    with connect(server.grpc_url) as live, Load([server.grpc_url], "m", {"x": [[1.0]]}, told_version) as load:
        assert isinstance(live, PollServer)
        with pytest.raises(ModelLoadError, match="did not load") as failed:
            put(repository, live, "single", "m", 2, broken=True)
        assert "this model is broken" in str(failed.value)
        assert (repository.versions("m"), live.served("m")) == ([1], [1])
        assert put(repository, live, "single", "m", 2).version == 2
        activate(repository, "m", 1, live, agree, by="rollback")
        assert load.wait_for("1")
        activate(repository, "m", 2, live, agree, by="promote")
        assert load.wait_for("2")
        with repository.stage() as stage:
            stage_telling(stage, "m", 5, config_k=2)
            (stage.path / "m" / "1").rename(repository.root / "m" / "3")
        live.take(repository.root, ["m"])
        assert live.served("m") == [3]
    assert {a.failure for a in load.report().asked if a.failure} <= {"wrong answer: config of 2, code of 5"}
