"""The README's own example, run as a stranger would: its files written, its commands typed, its answers looked at."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.ports import choose

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"^# (\w+\.py)\n")

pytestmark = pytest.mark.e2e


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == language]


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """A stranger's shell with the virtual environment active; ports of its own, so that tests can run side by side."""
    http, grpc, metrics = choose("127.0.0.1", 3)
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONCH_SERVE_HTTP_PORT": str(http),
        "CONCH_SERVE_GRPC_PORT": str(grpc),
        "CONCH_SERVE_METRICS_PORT": str(metrics),
        "CONCH_SERVE_EXIT_TIMEOUT": "3",
        "CONCH_INFER_URL": f"http://127.0.0.1:{http}",
        "COLUMNS": "160",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The README's Python blocks, each written to the file that its first line names."""
    where = tmp_path_factory.mktemp("stranger")
    for text in blocks("python"):
        name = FILE_NAME.match(text)
        assert name, f"a Python block must begin with its file's name:\n{text}"
        text = text.replace("http://127.0.0.1:8000", environment["CONCH_INFER_URL"])
        (where / name[1]).write_text(text, encoding="utf-8")
    return where


@pytest.fixture(scope="module")
def served(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """Every line of the shell blocks, run in order; what ends in `&` runs until the tests are done."""
    done, background = {}, []
    try:
        for line in [line for block in blocks("bash") for line in block.splitlines()]:
            if line.endswith("&"):
                words = line.removesuffix("&").split()
                log = open(folder / "serve.log", "w")  # noqa: SIM115 - the process outlives this line
                background.append(subprocess.Popen(words, cwd=folder, env=environment, stderr=log, stdout=log))
                wait_until_ready(environment["CONCH_INFER_URL"], folder / "serve.log")
            else:
                done[line] = run(line, folder, environment)
        yield done
    finally:
        for process in background:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def wait_until_ready(url: str, log: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/v2/models/wine/ready", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not become ready:\n{log.read_text()}")


def test_the_shell_blocks_run_and_answer(served: dict[str, subprocess.CompletedProcess[str]]) -> None:
    answer = next(done for line, done in served.items() if line.startswith("conch infer"))
    shown = answer.stderr + answer.stdout
    assert shown.count("class_") >= 20, shown
    assert [done.stderr for done in served.values() if "Traceback" in done.stderr] == []


def test_the_python_block_answers(served: object, folder: Path, environment: dict[str, str]) -> None:
    label, score = run("python ask.py", folder, environment).stdout.split()
    assert label in ("class_0", "class_1", "class_2")
    assert 0.33 < float(score) <= 1


def test_the_next_version_takes_over_while_the_server_runs(
    served: object, folder: Path, environment: dict[str, str]
) -> None:
    run("conch export sklearn wine.joblib --sample wine.csv", folder, environment)
    url = f"{environment['CONCH_INFER_URL']}/v2/models/wine/versions/3/ready"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("version 3 never became ready")


def test_the_shell_blocks_go_back_and_forth(served: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert "wine version 1 serves; version 2 served before" in served["conch repo rollback wine"].stderr
    assert "wine version 2 serves; version 1 served before" in served["conch repo promote wine"].stderr


def test_every_folder_of_the_map_is_there() -> None:
    folders = re.findall(r"^\| `([a-z_]+)/` \|", README, re.MULTILINE)
    assert len(folders) == 9
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


COMMANDS = sorted(set(re.findall(r"`?(conch (?:export |repo |perf )?[a-z]+)", README.split("## Other models")[1])))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_named_exists(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conch", *command.split()[1:], "--help"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
