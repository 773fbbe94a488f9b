"""`make demo-update`: versions of a pipeline published and taken back while clients ask it all the time.

Everything is real, in a temporary folder: `conch serve`, `conch repo publish`, `conch repo rollback`, and clients over
HTTP and gRPC that check every answer. What is printed is what the commands said, and when.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from conch.errors import ConchError, ServerError
from conch.terminal import console, print_table
from server import running, tiny_models
from server.under_load import Check, Load, LoadReport

PIPELINE, SINGLE = "reviews", "prices"
REPOSITORY = "model_repository"
START_TIMEOUT_S = 60.0
_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--exit-timeout", "1")


class Transcript:
    """Runs commands in one folder, and prints each, what it says and when, in seconds since the beginning."""

    def __init__(self, folder: Path, shown_on: Console = console) -> None:
        self.folder = folder
        self._console = shown_on
        self._began_s = time.monotonic()
        # Lines that fit a page.
        self._environment = {**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}

    def say(self, line: str) -> None:
        """Print a line with the time."""
        self._console.print(f"{time.monotonic() - self._began_s:6.1f}  {line}", markup=False, soft_wrap=True)

    def conch(self, *arguments: str, brief: bool = False) -> int:
        """Run a `conch` command, and print what it says, with ``brief`` its first and last line; returns its code."""
        with self.start(*arguments) as process:
            try:
                lines = [line.rstrip() for line in process.stdout or () if line.strip()]
            except BaseException:
                process.terminate()
                raise
        for line in [lines[0], "    ...", lines[-1]] if brief and len(lines) > 2 and not process.returncode else lines:
            self.say(f"  {line}")
        if process.returncode:
            self.say(f"(exit code {process.returncode})")
        return process.returncode

    def start(self, *arguments: str, shown: Sequence[str] = (), output: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        """Begin a `conch` command; ``shown`` is printed in place of its arguments."""
        self.say(f"$ conch {' '.join(shown or arguments)}")
        return subprocess.Popen(
            [sys.executable, "-m", "conch", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True)
class Outcome:
    """What the clients met, and what went otherwise than it should."""

    report: LoadReport
    surprises: tuple[str, ...] = ()


def main(*, good: int = 2, steady_s: float = 1.0) -> int:
    """Run the demonstration: returns the exit code. Raises: ConchError.

    ``good`` versions in which every part changes are published, then one that changes only code, a bad one, and the
    way back.
    """
    with _stopped_by_signals(), tempfile.TemporaryDirectory(prefix="conch-update-") as folder:
        transcript = Transcript(Path(folder))
        outcomes = {"explicit control, a pipeline of three parts": _pipeline(transcript, good, steady_s)}
        console.print()
        outcomes["poll control, a single model"] = _single(transcript, steady_s)
    for title, outcome in outcomes.items():
        console.print()
        _print_figures(title, outcome.report)
    surprises = [line for outcome in outcomes.values() for line in outcome.surprises]
    for line in surprises:
        console.print(f"not as it should be: {line}", markup=False)
    return 1 if surprises else 0


def _pipeline(transcript: Transcript, good: int, steady_s: float) -> Outcome:
    """Good versions, a bad one, and back, in explicit control."""
    surprises = []
    _stage_pipeline(transcript.folder / "stage-1", 1)
    if transcript.conch("repo", "publish", "stage-1", "--no-server", brief=True):
        raise ServerError("the first version was not published", where=transcript.folder)
    with _served(transcript, "--control", "explicit", "--load-model", PIPELINE) as found:
        with _load(transcript, found, PIPELINE, tiny_models.pipeline_version) as load:
            time.sleep(steady_s)
            for k in range(2, good + 2):
                _stage_pipeline(transcript.folder / f"stage-{k}", k)
                with load.update(f"publish version {k}"):
                    code = transcript.conch("repo", "publish", f"stage-{k}", brief=k > 2)
                surprises += _unless(code == 0 and load.wait_for(str(k)), f"version {k} does not serve")
                time.sleep(steady_s)
            last = good + 2
            transcript.say("# the next one changes only code: the version before can stay loaded")
            _stage_pipeline(transcript.folder / f"stage-{last}", last, padding=1 + (last - 1) % 2)
            with load.update(f"publish version {last}"):
                code = transcript.conch("repo", "publish", f"stage-{last}", "--keep-loaded", brief=True)
            surprises += _unless(code == 0 and load.wait_for(str(last)), f"version {last} does not serve")
            time.sleep(steady_s)
            transcript.say("# the next one loads, and answers otherwise than the model that it was made from")
            _stage_pipeline(transcript.folder / "stage-bad", last + 1, broken=0.5)
            with load.update("publish a bad candidate"):
                code = transcript.conch("repo", "publish", "stage-bad")
            surprises += _unless(code != 0, "the bad candidate was published")
            with load.update(f"rollback to version {last - 1}"):
                code = transcript.conch("repo", "rollback", PIPELINE)
            surprises += _unless(code == 0 and load.wait_for(str(last - 1)), f"version {last - 1} does not serve")
            time.sleep(steady_s)
        _say_end(transcript, load)
    return Outcome(load.report(), (*surprises, *_losses(load)))


def _single(transcript: Transcript, steady_s: float) -> Outcome:
    """One version more, in poll control: nobody tells the server to load."""
    root = transcript.folder / REPOSITORY
    tiny_models.write_single(root, SINGLE, 1)
    tiny_models.record(root, SINGLE, 1)
    with _served(transcript, "--control", "poll", "--poll-interval", "1") as found:
        with _load(transcript, found, SINGLE, tiny_models.single_version) as load:
            time.sleep(steady_s)
            stage = transcript.folder / "stage-poll"
            tiny_models.write_single(stage, SINGLE, 2)
            tiny_models.record(stage, SINGLE, 2)
            with load.update("publish version 2"):
                code = transcript.conch("repo", "publish", stage.name)
            surprises = _unless(code == 0 and load.wait_for("2"), "version 2 does not serve")
            time.sleep(steady_s)
        _say_end(transcript, load)
    return Outcome(load.report(), (*surprises, *_losses(load)))


def _stage_pipeline(folder: Path, k: int, **changed: Any) -> None:
    tiny_models.write_pipeline(folder, PIPELINE, k, **changed)
    tiny_models.record(folder, PIPELINE, k)


@contextmanager
def _served(transcript: Transcript, *options: str) -> Iterator[running.Running]:
    """`conch serve` on the repository, on free ports, until the block ends."""
    log = transcript.folder / "serve.txt"
    with open(log, "w", encoding="utf-8") as output:
        process = transcript.start("serve", *options, *_PORTS, shown=("serve", *options), output=output)
    try:
        yield _wait_until_served(transcript, process, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_served(transcript: Transcript, process: subprocess.Popen[str], log: Path) -> running.Running:
    ends_at_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at_s and process.poll() is None:
        found = running.find_running(transcript.folder / REPOSITORY)
        if found is not None:
            return found
        time.sleep(0.05)
    raise ServerError("the server did not start", got=log.read_text(encoding="utf-8"), fix="`conch doctor`")


@contextmanager
def _load(transcript: Transcript, found: running.Running, model: str, check: Check) -> Iterator[Load]:
    load = Load([found.http_url, found.grpc_url], model, tiny_models.ASKED, check, longest_s=300, pause_s=0.01)
    with load:
        transcript.say(f"# 4 clients ask {model} all the time, 2 over HTTP and 2 over gRPC, and check every answer")
        yield load


def _say_end(transcript: Transcript, load: Load) -> None:
    report = load.report()
    transcript.say(f"# {report.requests} requests, {report.failed} failed, {report.mixed} mixed")


def _losses(load: Load) -> list[str]:
    return [f"{count} x {what}" for what, count in load.report().failures.items()]


def _unless(fine: bool, what: str) -> list[str]:
    return [] if fine else [what]


def _print_figures(title: str, report: LoadReport) -> None:
    spans = [("steady", report.steady()), *((window.what, report.during(window)) for window in report.updates)]
    rows = [
        (what, span.requests, span.failed, span.mixed, *(round(span.quantile_ms(q), 1) for q in (0.5, 0.99, 1.0)))
        for what, span in [*spans, ("all updates", report.during(*report.updates)), ("all", report)]
    ]
    print_table(("while", "requests", "failed", "mixed", "p50 ms", "p99 ms", "longest ms"), rows, title=title)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn SIGTERM into what Ctrl-C is, so that whatever was started ends with us."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConchError as error:
        console.print(f"error: {error}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)
