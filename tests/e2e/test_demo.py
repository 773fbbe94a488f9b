"""`conch demo`, as `make demo` runs it: exports, serves, asks through every client, stops."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

CLIENTS = {"HTTP", "HTTP async", "gRPC", "gRPC async"}


def demo(repository: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conch", "demo", "--json", "--repository", str(repository)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CONCH_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "model_repository"


@pytest.fixture(scope="module")
def first(repository: Path) -> subprocess.CompletedProcess[str]:
    done = demo(repository)
    assert done.returncode == 0, done.stderr
    return done


def test_every_sample_answers_through_every_client(first: subprocess.CompletedProcess[str]) -> None:
    asked = [one for one in json.loads(first.stdout) if one["sample"] != "chat"]
    assert {one["sample"] for one in asked} == {"embeddings", "spam", "churn", "digits"}
    assert [one for one in asked if set(one["answers"]) != CLIENTS] == []
    assert [one for one in asked if len(set(one["answers"].values())) != 1] == []


def test_the_chat_model_streams_its_answers(first: subprocess.CompletedProcess[str]) -> None:
    asked = [one for one in json.loads(first.stdout) if one["sample"] == "chat"]
    assert [set(one["answers"]) for one in asked] == [{"gRPC stream"}] * 3
    assert [one for one in asked if one["expected"] not in one["answers"]["gRPC stream"]] == []
    assert re.findall(r"\((\d+) pieces, the first after", first.stderr)


def test_the_answers_are_what_a_person_expects(first: subprocess.CompletedProcess[str]) -> None:
    asked = [one for one in json.loads(first.stdout) if one["sample"] != "chat"]
    expecting = [one for one in asked if one["expected"] is not None]
    assert len(expecting) >= 6
    wrong = [one for one in expecting if one["expected"] not in one["answers"]["HTTP"]]
    assert len(wrong) <= len(expecting) // 10, wrong


def test_a_person_reads_questions_and_answers_and_no_warnings(first: subprocess.CompletedProcess[str]) -> None:
    asked = json.loads(first.stdout)
    assert [one["question"] for one in asked if one["question"].split()[0] not in first.stderr] == []
    assert re.findall(r"(?i)traceback|\w*warning|deprecated", first.stderr) == []


def test_nothing_runs_on(first: subprocess.CompletedProcess[str], repository: Path) -> None:
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.parent.name != str(os.getpid())]
    assert [line for line in lines if str(repository).encode() in line] == []


def test_the_second_time_exports_nothing(first: subprocess.CompletedProcess[str], repository: Path) -> None:
    before = sorted(p.as_posix() for p in repository.rglob("*"))
    again = demo(repository)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is there already") == 5
    assert sorted(p.as_posix() for p in repository.rglob("*")) == before
