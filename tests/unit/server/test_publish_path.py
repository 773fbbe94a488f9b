"""The path of a publish without a server and without a trial: files, numbers, manifests, signatures, locks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch import ledger, signing
from conch.errors import ServerError
from conch.manifest import Manifest, digest_files
from conch.repository import Repository
from conch.switching.locks import Busy
from server.repo_view.live_states import Server
from server.rollout import going_back
from server.rollout.cli import promote, publish, recover, rollback, watch
from server.rollout.locks import changing
from server.rollout.publish import PublishError, PublishOptions, run
from server.running import announce

NONE = Server(none=True)


@pytest.fixture
def options(tmp_path: Path) -> PublishOptions:
    return PublishOptions(tmp_path / "models", server=NONE, trial=False)


@pytest.fixture
def source(tmp_path: Path, write_python_model: Any) -> Path:
    folder: Path = write_python_model(tmp_path / "in", "tiny")
    return folder.parent


def with_manifest(source: Path) -> Path:
    folder = source / "1"
    Manifest("tiny", "now", {"kind": "test"}, digest_files(folder), (source / "config.pbtxt").read_text()).write(folder)
    return folder


def test_a_version_without_a_manifest_gets_one(source: Path, options: PublishOptions) -> None:
    done = run(source, options)
    assert (done.name, done.version, done.outcome, done.server) == ("tiny", 1, "published", "")
    repository = Repository(options.repository)
    manifest = repository.manifest("tiny", 1)
    assert manifest is not None
    assert manifest.source["kind"] == "published"
    assert manifest.files == digest_files(repository.version_path("tiny", 1))
    assert [(s.version, s.by) for s in ledger.read(repository.root).history["tiny"]] == [(1, "publish")]


def test_a_manifest_that_came_along_stays_byte_for_byte(source: Path, options: PublishOptions) -> None:
    folder = with_manifest(source)
    run(source, options)
    assert (options.repository / "tiny/1/manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_under_another_name_the_manifest_says_so(source: Path, options: PublishOptions) -> None:
    with_manifest(source)
    done = run(source, replace(options, as_name="other"))
    manifest = Repository(options.repository).manifest("other", done.version)
    assert manifest is not None
    assert manifest.model == "other"
    assert 'name: "other"' in manifest.config


def test_the_same_again_changes_nothing(source: Path, options: PublishOptions) -> None:
    run(source, options)
    before = (options.repository / "conch.json").stat().st_mtime_ns
    again = run(source, options)
    assert (again.outcome, again.version) == ("already there", 1)
    assert Repository(options.repository).versions("tiny") == [1]
    assert (options.repository / "conch.json").stat().st_mtime_ns == before


def test_what_the_source_does_later_does_not_reach_what_serves(source: Path, options: PublishOptions) -> None:
    run(source, options)
    with open(source / "1" / "model.py", "a", encoding="utf-8") as file:
        file.write("# later\n")
    assert "later" not in (options.repository / "tiny/1/model.py").read_text()
    assert run(source, options).version == 2


@pytest.mark.parametrize(("wanted", "why"), [(1, "exists"), (3, "would not serve")])
def test_a_number_that_cannot_serve(wanted: int, why: str, source: Path, options: PublishOptions) -> None:
    run(source, options)
    (source / "1" / "model.py").write_text("# two\n")
    assert run(source, replace(options, version=5)).version == 5
    (source / "1" / "model.py").write_text("# three\n")
    with pytest.raises(PublishError, match=f"check the files: version {wanted} .*{why}"):
        run(source, replace(options, version=wanted))


def test_a_config_that_would_not_serve_it_is_refused(source: Path, options: PublishOptions, tmp_path: Path) -> None:
    config = tmp_path / "pinned.pbtxt"
    config.write_text((source / "config.pbtxt").read_text() + "version_policy { specific { versions: 9 } }\n")
    with pytest.raises(PublishError, match="would not serve version 1"):
        run(source, replace(options, config=replace(options.config, file=config)))
    assert list(options.repository.iterdir()) == []


def test_a_lint_error_is_refused(source: Path, options: PublishOptions) -> None:
    config = source / "config.pbtxt"
    config.write_text(config.read_text() + "dynamic_batching { preferred_batch_size: 64 }\n")
    with pytest.raises(PublishError, match="lint: R19"):
        run(source, options)
    assert list(options.repository.iterdir()) == []


def test_signed_and_verified(source: Path, options: PublishOptions, tmp_path: Path) -> None:
    key = tmp_path / "key"
    public = signing.generate(key)
    folder = with_manifest(source)
    with pytest.raises(PublishError, match="check the files: the version is not signed"):
        run(source, replace(options, verify_key=public))
    signing.sign(folder, key)
    run(source, replace(options, verify_key=public))
    signing.verify(options.repository / "tiny" / "1", public)
    done = run(source, replace(options, as_name="other"))
    assert any("no longer signed" in warning for warning in done.warnings)
    assert not (options.repository / "other" / "1" / "manifest.sig").exists()
    run(source, replace(options, as_name="third", sign_key=key))
    signing.verify(options.repository / "third" / "1", public)


def test_two_at_once_one_says_so(source: Path, options: PublishOptions) -> None:
    code = (
        "import sys, time; from conch.repository import Repository; from server.rollout.locks import changing\n"
        "with changing(Repository(sys.argv[1]), 'tiny'):\n    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(options.repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(Busy, match=rf"a publish of tiny runs already \(pid {other.pid}\)"):
                run(source, options)
            assert run(source, replace(options, as_name="else")).outcome == "published"
        finally:
            other.kill()


def test_a_server_that_takes_no_changes_is_named(source: Path, options: PublishOptions) -> None:
    options.repository.mkdir()
    with announce(options.repository, "http://h:1", "grpc://h:2", "none"), pytest.raises(PublishError) as raised:
        run(source, replace(options, server=Server()))
    assert isinstance(raised.value.__cause__, ServerError)
    assert "--control poll or explicit" in str(raised.value)


@pytest.fixture
def three(source: Path, options: PublishOptions) -> Repository:
    """Versions 1 to 3, all of which served."""
    for number in (1, 2, 3):
        (source / "1" / "model.py").write_text(f"# {number}\n")
        run(source, options)
    return Repository(options.repository)


def serves(repository: Repository) -> list[int]:
    return list(repository.config("tiny").version_policy.specific.versions)


def test_going_back_twice_goes_back_further(three: Repository) -> None:
    assert going_back.roll_back(three.root, "tiny", None, NONE).version == 2
    assert serves(three) == [2]
    assert going_back.roll_back(three.root, "tiny", None, NONE).version == 1
    assert serves(three) == [1]


def test_going_back_is_to_what_served_before_not_to_the_next_lower(three: Repository) -> None:
    going_back.roll_back(three.root, "tiny", 1, NONE)
    going_back.promote(three.root, "tiny", 3, NONE)
    assert going_back.roll_back(three.root, "tiny", None, NONE).version == 1


def test_the_latest_is_promoted_and_held_no_longer(three: Repository) -> None:
    going_back.roll_back(three.root, "tiny", 1, NONE)
    assert going_back.promote(three.root, "tiny", None, NONE).version == 3
    assert not three.config("tiny").HasField("version_policy")
    assert ledger.read(three.root).held == {}


def test_the_next_publish_lets_go_of_a_held_version(three: Repository, source: Path, options: PublishOptions) -> None:
    going_back.roll_back(three.root, "tiny", 1, NONE)
    (source / "1" / "model.py").write_text("# 4\n")
    done = run(source, options)
    assert (done.version, done.previous) == (4, 1)
    assert not three.config("tiny").HasField("version_policy")


def test_nowhere_to_go_back_to(source: Path, options: PublishOptions) -> None:
    run(source, options)
    with pytest.raises(Exception, match="no version to go back to"):
        going_back.roll_back(options.repository, "tiny", None, NONE)


@pytest.mark.parametrize("command", [publish, rollback, promote, recover, watch], ids=lambda c: c.name)
def test_help_has_examples(command: Any) -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert f"conch repo {command.name}" in result.output


def test_the_command_prints_one_document(source: Path, options: PublishOptions) -> None:
    arguments = [str(source), "--repository", str(options.repository), "--no-server", "--no-trial", "--json"]
    result = CliRunner().invoke(publish, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["name"], document["version"], document["outcome"]) == ("tiny", 1, "published")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-server", "--server", "grpc://h:1"],
        ["--config", "c", "--keep-config"],
        ["--alias", "a", "--keep-loaded"],
        ["--header", "no colon"],
    ],
)
def test_options_that_exclude_each_other(arguments: list[str], source: Path) -> None:
    assert CliRunner().invoke(publish, [str(source), *arguments]).exit_code == 2


def test_locks_are_for_a_name_not_the_repository(options: PublishOptions) -> None:
    options.repository.mkdir()
    with changing(Repository(options.repository), "a"), changing(Repository(options.repository), "b"):
        pass
