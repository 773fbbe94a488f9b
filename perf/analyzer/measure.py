"""`measure`: one load on a running server, by perf_analyzer, as a Point. What runs, sweeps and searches all call.

perf_analyzer is called for three windows at a time. When they agree in throughput and latency, that is the point; when
not, it is called again, until the load's trials are spent: then the steadiest three are the point, marked unstable.
(Left to itself perf_analyzer reports nothing of a load that it finds unstable.) However this ends, also by Ctrl-C or a
kill, perf_analyzer goes, and so does its shared memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from conch.errors import ConchError
from perf.analyzer import binary, counters, parse
from perf.analyzer.command import WINDOWS, arguments
from perf.analyzer.inputs import Inputs
from perf.analyzer.served import configs
from perf.points import Load, Point
from server.tethered import Launch, TetheredProcess

SHARED_MEMORY = Path("/dev/shm")
# Beyond the windows: the start, and requests in flight that are waited for.
SPARE_S = 60.0
STOP_S = 5.0
POLL_S = 0.1
# Windows in which no request was done are made this much longer, so often.
WIDEN, WIDENINGS = 4, 2
# Fewer than this of the asked rate, and the loop was not open.
KEPT_UP = 0.9

OnLine = Callable[[str], None]


class LoadFailed(ConchError):
    """perf_analyzer gave up: a request failed, or the server did not keep up."""


class WindowTooShort(LoadFailed):
    """No request was done within a measurement window."""


def measure(
    load: Load, url: str, inputs: Inputs, *, on_line: OnLine | None = None, csv_path: Path | None = None
) -> Point:
    """Measure one load at a server's address of the load's protocol.

    ``on_line`` gets perf_analyzer's lines as they come; its raw CSV is kept at ``csv_path``.
    Raises: LoadFailed with perf_analyzer's own reason; ConchError where it cannot be found or called.
    """
    analyzer = binary.find_or_install()
    found: list[parse.Figures] = []
    before = counters.read(url, load.model, load.version)
    with tempfile.TemporaryDirectory(prefix="conch-perf-") as name:
        scratch = Path(name)
        stride = (load.concurrency or 1) * load.batch_size
        data = inputs.write(scratch / "inputs.json", stride)
        best, asked = float("inf"), load
        for attempt in range(max(1, load.max_trials // WINDOWS)):
            report = scratch / f"report-{attempt}.csv"
            while True:
                command = [*analyzer.command(scratch), *arguments(asked, url, data, report)]
                launch = Launch(tuple(command), analyzer.environment(os.environ), scratch, STOP_S, _cleanup(load, url))
                try:
                    log = _call(asked, launch, on_line)
                    break
                except WindowTooShort:
                    if asked.window_ms >= load.window_ms * WIDEN**WIDENINGS:
                        raise
                    asked = dataclasses.replace(asked, window_ms=asked.window_ms * WIDEN)
            text = report.read_text(encoding="utf-8") if report.is_file() else ""
            found.append(parse.figures(text, log))
            if csv_path is not None and found[-1].spread_percent <= best:
                csv_path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(report, csv_path)
            best = min(best, found[-1].spread_percent)
            if best <= load.stability_percent:
                break
    served = counters.between(before, counters.read(url, load.model, load.version))
    return _point(load, asked, min(found, key=lambda figures: figures.spread_percent), served, len(found) * WINDOWS)


def _point(load: Load, measured: Load, figures: parse.Figures, served: counters.Served, windows: int) -> Point:
    """The point that figures and counters make, with a warning for all that makes it doubtful.

    ``measured`` is the load with the windows that it took in the end.
    """
    warnings = list(figures.warnings)
    if measured.window_ms != load.window_ms:
        warnings.append(
            f"no request was done within some window of {load.window_ms} ms: these have {measured.window_ms} ms"
        )
    stable = figures.spread_percent <= load.stability_percent
    if not stable:
        each = ", ".join(f"{w.inferences_per_second:.0f}/s at {w.latency_ms:.1f} ms" for w in figures.windows)
        warnings.append(
            f"unstable: after {windows} windows of {measured.window_ms} ms the steadiest three differ by "
            f"{figures.spread_percent:.0f} % (allowed {load.stability_percent:g} %): {each}"
        )
    rate = figures.inferences_per_second / load.batch_size
    asked = load.request_rate_per_second
    # Poisson arrivals scatter: with n expected, by the square root of n, and three of those are rare.
    expected = (asked or 0) * measured.window_ms * WINDOWS / 1e3
    scatter = 3 / expected**0.5 if load.arrivals == "poisson" and expected else 0.0
    if asked is not None and rate < asked * (KEPT_UP - scatter):
        stable = False
        warnings.append(f"{asked:g} requests/s were asked for, and {rate:.1f} answered: more than the server can do")
    if served.failures:
        warnings.append(f"{served.failures} requests failed")
    return Point(
        load=load,
        requests_per_second=rate,
        inferences_per_second=figures.inferences_per_second,
        latency_ms=figures.latency_ms,
        server_ms=figures.server_ms or served.server_ms,
        average_batch=figures.average_batch or served.average_batch,
        requests=figures.requests,
        failures=served.failures,
        stable=stable,
        warnings=tuple(warnings),
        batch_sizes=served.batch_sizes,
    )


def _call(load: Load, launch: Launch, on_line: OnLine | None) -> str:
    """Run perf_analyzer to its end; its log. Raises: LoadFailed."""
    log_path = launch.folder / "log"
    limit_s = WINDOWS * load.window_ms / 1e3 * 2 + SPARE_S
    process = TetheredProcess(launch, log_path=log_path, scratch=launch.folder)
    try:
        code = _follow(process, log_path, limit_s, on_line)
    finally:
        if process.exit_code() is None:
            # Interrupted it lets go of its shared memory, and waits for requests in flight.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
            if process.wait(STOP_S) is None:
                process.kill()
    log = log_path.read_text(encoding="utf-8", errors="replace")
    if code is None:
        raise LoadFailed(
            f"perf_analyzer was not done after {limit_s:.0f} s",
            where=f"{load.model}, {load.label}",
            got=f"the end of its log:\n{_tail(log)}",
            fix="the server answers too slowly for this load: ask for fewer requests",
        )
    if code != 0:
        got = parse.reason(log)
        kind = WindowTooShort if parse.NO_REQUESTS in log and "had error" not in log else LoadFailed
        raise kind(
            "perf_analyzer could not measure the load",
            where=f"{load.model}, {load.label}",
            got=got,
            fix=_advice(got, log),
        )
    return log


def _follow(process: TetheredProcess, log_path: Path, limit_s: float, on_line: OnLine | None) -> int | None:
    """Hand on the lines as they come; the exit code, or None when the time is over first."""
    deadline = time.monotonic() + limit_s
    with open(log_path, encoding="utf-8", errors="replace") as log:
        rest = ""
        while True:
            code = process.wait(POLL_S)
            *lines, rest = (rest + log.read()).split("\n")
            for line in lines:
                if on_line is not None:
                    on_line(line)
            if code is not None or time.monotonic() > deadline:
                return code


def _advice(got: str, log: str) -> str | None:
    """What a user can do about the failures that are known."""
    if parse.NO_REQUESTS in log and "had error" not in log:
        return "the model is slow for this load: give longer windows with --window-ms"
    if "batch-size must be" in got:
        return "choose a smaller --batch-size"
    if "output-shared-memory-size" in log:
        return "an output is larger than a region of shared memory: measure without --shared-memory"
    if "Exceeds maximum queue size" in got or "exceeds" in got.lower():
        return "the server refuses what its queue does not hold: ask for fewer at a time"
    return None


def _tail(log: str, lines: int = 5) -> str:
    return "\n".join(log.strip().splitlines()[-lines:])


def _cleanup(load: Load, url: str) -> tuple[tuple[str, ...], ...]:
    """What removes the shared memory that a killed perf_analyzer leaves: an input's regions are named after it, with a
    stream and a step; an output's is its name alone.
    """
    if load.shared_memory == "none":
        return ()
    config = configs(url, load.model)[load.model]
    patterns = [f"{SHARED_MEMORY}/{shlex.quote(tensor.name)}_[0-9]*_[0-9]*" for tensor in config.input]
    patterns += [f"{SHARED_MEMORY}/{shlex.quote(tensor.name)}" for tensor in config.output]
    return (("/bin/sh", "-c", f"rm -f {' '.join(patterns)}"),)
