import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch import ledger
from conch.errors import RepositoryError, ServerUnavailable
from conch.ledger import Alias, Held, Ledger, Served
from conch.repository import Repository
from conch.switching import locks
from server.http_api import ModelState
from server.repo_view import pruning
from server.repo_view.cli import prune
from server.repo_view.contents import look
from server.repo_view.live_states import LiveStates, Server
from tests.fakes.written_versions import CONFIG, add_pipeline, add_side_model, add_versions

FILES_ONLY = Server(none=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def kept(root: Path, name: str = "spam", keep: int = 1, live: LiveStates | None = None) -> dict[int, str]:
    (found,) = pruning.plan(look(root, live), [name], keep)
    return {k.version: ", ".join(k.reasons) for k in found.kept}


def served(*versions: int) -> tuple[Served, ...]:
    return tuple(Served(v, "2026-01-02T03:04:05+00:00", "publish") for v in versions)


def with_policy(root: Path, policy: str, name: str = "spam") -> None:
    (root / name / "config.pbtxt").write_text(CONFIG + policy)


def test_the_newest_stay_and_the_one_before_what_serves(root: Path) -> None:
    add_versions(root, count=5)
    assert kept(root) == {5: "serves, newest", 4: "served before"}
    assert kept(root, keep=3) == {
        5: "serves, among the newest 3",
        4: "among the newest 3, served before",
        3: "among the newest 3",
    }


def test_the_last_good_one_is_what_the_history_says(root: Path) -> None:
    add_versions(root, count=5)
    ledger.update(root, lambda _: Ledger(history={"spam": served(1, 2, 5)}))
    assert kept(root) == {5: "serves, newest", 2: "served before"}


def test_the_last_good_one_is_not_the_one_that_serves_again(root: Path) -> None:
    add_versions(root, count=5)
    with_policy(root, "version_policy { specific { versions: [2] } }")
    ledger.update(root, lambda _: Ledger(history={"spam": served(1, 2, 3, 2)}))
    assert kept(root) == {2: "serves", 3: "served before", 5: "newest"}


def test_a_version_of_the_history_that_is_gone_keeps_none_in_its_place(root: Path) -> None:
    add_versions(root, count=5)
    ledger.update(root, lambda _: Ledger(history={"spam": served(1, 9, 5)}))
    assert kept(root) == {5: "serves, newest", 1: "served before"}


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        ("version_policy { latest { num_versions: 3 } }", {3: "its policy loads it", 5: "serves, newest"}),
        ("version_policy { specific { versions: [1, 3] } }", {1: "its policy loads it", 3: "serves", 5: "newest"}),
    ],
)
def test_what_the_policy_loads_stays(root: Path, policy: str, reasons: dict[int, str]) -> None:
    add_versions(root, count=5)
    with_policy(root, policy)
    found = kept(root)
    assert {v: found[v] for v in reasons} == reasons


def test_what_a_server_serves_stays_whatever_the_files_say(root: Path) -> None:
    add_versions(root, count=5)
    states = (
        ModelState("spam", "1", "READY", ""),
        ModelState("spam", "2", "UNAVAILABLE", "unloaded"),
        ModelState("spam", "3", "LOADING", ""),
    )
    found = kept(root, live=LiveStates("http://x", states))
    assert found == {1: "READY on the server", 3: "LOADING on the server", 5: "serves, newest"}


@pytest.mark.parametrize(
    ("known", "version", "reason"),
    [
        (Ledger(aliases={"spam": {"old": Alias("spam", 2)}}), 2, "alias old"),
        (Ledger(held={"spam": Held(1, "")}), 1, "held"),
    ],
)
def test_what_the_ledger_names_stays(root: Path, known: Ledger, version: int, reason: str) -> None:
    add_versions(root, count=5)
    ledger.update(root, lambda _: known)
    assert kept(root)[version] == reason


def test_what_an_ensemble_is_pinned_to_stays(root: Path) -> None:
    add_versions(root, ["spam"], count=5)
    step = 'step { model_name: "spam" model_version: 2 }'
    add_versions(root, ["both"], config=f'platform: "ensemble" ensemble_scheduling {{ {step} }}')
    assert kept(root, "both")[2] == "spam: a step of both is pinned to it"


def test_what_a_canary_serves_stays(root: Path) -> None:
    add_versions(root, count=5)
    add_side_model(root, "spam", 2)
    assert kept(root)[2] == "served by spam.v2"


def test_nothing_goes_where_the_config_cannot_be_read(root: Path) -> None:
    add_versions(root, count=3)
    (root / "spam" / "config.pbtxt").write_text("nonsense {")
    assert set(kept(root)) == {1, 2, 3}


def test_a_pipelines_parts_go_together(root: Path) -> None:
    add_pipeline(root, count=4)
    ledger.update(root, lambda _: Ledger(aliases={"digits": {"old": Alias("digits", 2)}}))
    (found,) = pruning.prune(root, ["digits"], 1, FILES_ONLY)
    assert found.names == ("digits", "digits_model", "digits_preprocess")
    repository = Repository(root)
    assert [repository.versions(n) for n in found.names] == [[2, 3, 4], [2, 3, 4], [2, 3, 4]]


def test_a_pipelines_history_counts_for_its_parts(root: Path) -> None:
    add_pipeline(root, count=4)
    ledger.update(root, lambda _: Ledger(history={"digits": served(1, 4)}))
    assert set(kept(root, "digits")) == {1, 4}


def test_pipelines_that_share_a_member_are_pruned_as_one(root: Path) -> None:
    add_versions(root, ["shared"], count=3)
    ensemble = 'platform: "ensemble" ensemble_scheduling { step { model_name: "shared" model_version: VERSION } }'
    add_versions(root, ["one"], config=ensemble.replace("VERSION", "-1"))
    add_versions(root, ["two"], config=ensemble.replace("VERSION", "1"))
    assert pruning.plan(look(root), ["one"], 1) == pruning.plan(look(root), ["two"], 1)
    assert 1 in kept(root, "one")


def test_without_names_every_model_is_pruned_once(root: Path) -> None:
    add_versions(root, ["spam"], count=3)
    add_pipeline(root, count=3)
    add_side_model(root, "spam", 9)
    plans = pruning.prune(root, [], 1, FILES_ONLY)
    assert sorted(p.names[0] for p in plans) == ["digits", "spam"]
    assert Repository(root).versions("spam") == [2, 3]
    assert (root / "spam.v9" / "9").is_dir()


@pytest.mark.parametrize(
    ("name", "message"), [("digits_model", "prune digits"), ("digits.v9", "goes with its alias"), ("digit", "digits")]
)
def test_what_cannot_be_pruned_alone_is_refused(root: Path, name: str, message: str) -> None:
    add_pipeline(root, count=3)
    add_side_model(root, "digits", 9)
    with pytest.raises(RepositoryError) as caught:
        pruning.prune(root, [name], 1, FILES_ONLY)
    assert message in str(caught.value)


def test_what_goes_is_gone_and_what_stays_is_untouched(root: Path) -> None:
    add_versions(root, count=4)
    inode = (root / "spam" / "4" / "model.py").stat().st_ino
    (found,) = pruning.prune(root, ["spam"], 1, FILES_ONLY)
    assert [r.version for r in found.removed] == [1, 2]
    assert sorted(p.name for p in (root / "spam").iterdir()) == ["3", "4", "config.pbtxt"]
    assert (root / "spam" / "4" / "model.py").stat().st_ino == inode
    assert [p for p in Repository(root).staging.rglob("*") if p.name == "model.py"] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from server.repo_view import pruning
from server.repo_view.live_states import Server
left = int(sys.argv[2])
real = os.rename
def rename(source, target):
    global left
    real(source, target)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename
pruning.prune(Path(sys.argv[1]), ["digits"], 1, Server(none=True))
"""


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_a_kill_leaves_every_version_whole_or_gone_and_the_next_run_finishes(root: Path, renames: int) -> None:
    add_pipeline(root, count=3)
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(renames)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    repository = Repository(root)
    members = [repository.versions(n) for n in ("digits_model", "digits_preprocess")]
    assert repository.versions("digits") == [2, 3]  # the ensemble's version goes first
    assert all({2, 3} <= set(versions) for versions in members)
    assert all((v.path / "manifest.json").is_file() for m in look(root).models.values() for v in m.versions)
    pruning.prune(root, ["digits"], 1, FILES_ONLY)
    assert [repository.versions(n) for n in ("digits_model", "digits_preprocess")] == [[2, 3], [2, 3]]
    assert [p for p in repository.staging.rglob("*") if p.name == "model.py"] == []


def test_it_refuses_while_an_update_is_not_finished(root: Path) -> None:
    from conch.switching import journal
    from conch.switching.journal import Journal

    add_versions(root, count=4)
    journal.write(Journal("spam", 5, journal.PLAIN, (), 4), Repository(root).staging)
    with pytest.raises(RepositoryError, match="an update of spam to version 5 was interrupted"):
        pruning.prune(root, ["spam"], 1, FILES_ONLY)
    assert Repository(root).versions("spam") == [1, 2, 3, 4]


BUSY = """
import sys
from pathlib import Path
from conch.switching import locks
with locks.models(Path(sys.argv[1]), ["digits_model"], "publish"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_it_refuses_while_a_part_is_published(root: Path) -> None:
    add_pipeline(root, count=4)
    staging = str(Repository(root).staging)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, staging], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(locks.Busy, match=r"publish of digits_model runs already \(pid"):
            pruning.prune(root, ["digits"], 1, FILES_ONLY)
        other.communicate(timeout=30)
    assert Repository(root).versions("digits_model") == [1, 2, 3, 4]


def test_a_server_that_does_not_answer_stops_it(root: Path) -> None:
    add_versions(root, count=4)
    with pytest.raises(ServerUnavailable):
        pruning.prune(root, ["spam"], 1, Server("http://127.0.0.1:9"))
    assert Repository(root).versions("spam") == [1, 2, 3, 4]


def run(root: Path, *words: str) -> Any:
    return CliRunner().invoke(prune, [*words, "--repository", str(root)], catch_exceptions=False)


def test_a_dry_run_tells_the_same_and_changes_nothing(root: Path) -> None:
    add_versions(root, count=4)
    dry = json.loads(run(root, "spam", "--keep", "1", "--dry-run", "--json").stdout)
    assert Repository(root).versions("spam") == [1, 2, 3, 4]
    wet = json.loads(run(root, "spam", "--keep", "1", "--json").stdout)
    assert dry == {**wet, "dry_run": True}
    assert [r["version"] for r in wet["models"][0]["removed"]] == [1, 2]


def test_people_are_told_what_goes_and_why_the_rest_stays(root: Path) -> None:
    add_versions(root, count=4)
    words = " ".join(run(root, "--keep", "1").stderr.split())
    assert "spam 1-2 removed, " in words
    assert "3 kept: served before 4 kept: serves, newest" in words
    assert "2 versions, " in words
    assert "no server was asked" in words


def test_none_is_no_number_to_keep(root: Path) -> None:
    add_versions(root)
    assert run(root, "--keep", "0").exit_code == 2
    assert run(root).exit_code == 2


def test_a_config_kept_for_a_version_goes_with_it(root: Path) -> None:
    from conch.switching.plan import remembered_config

    add_versions(root, count=4, by_hand=True)
    config = remembered_config(Repository(root).staging, "spam", 1)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG)
    pruning.prune(root, ["spam"], 1, FILES_ONLY)
    assert not config.exists()


def test_nothing_but_plain_data_is_in_a_plan(root: Path) -> None:
    add_versions(root, count=3)
    (found,) = pruning.plan(look(root), ["spam"], 1)
    assert dataclasses.asdict(found)["removed"][0]["folders"] == (root / "spam" / "1",)
    assert found.removed[0].size_bytes == sum(
        os.path.getsize(root / "spam" / "1" / f) for f in ("model.py", "manifest.json")
    )
