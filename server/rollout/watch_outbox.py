"""`conch repo watch`: publish what arrives whole in a folder where training jobs drop versions.

    OUTBOX/NAME.onnx                 an ONNX file, for the model NAME
    OUTBOX/NAME/ANYTHING             a folder as `publish` takes it, or an ONNX file, for the model or pipeline NAME
    OUTBOX/.published/NAME/...       what was published or was there already, with ANYTHING.report.json beside it
    OUTBOX/.failed/NAME/...          what was refused

Names that begin with a dot or end in .tmp or .part are on their way, and are left alone. The outbox itself is all the
state there is: after a kill, what lies there is published, or found to be there already.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from conch.errors import ConchError, RepositoryError, ServerUnavailable
from conch.switching.locks import Busy
from conch.terminal import console
from server.rollout import published_report
from server.rollout.candidate import MARKERS
from server.rollout.publish import Published, PublishOptions, run

PUBLISHED, FAILED = ".published", ".failed"
LOOK_EVERY_S = 0.5
# What is nobody's fault is tried again: the server is away, or somebody else changes the model.
AGAIN_AFTER_S = 30.0
_ON_THEIR_WAY = (".tmp", ".part", ".partial", ".crdownload")

Publish = Callable[[Path, PublishOptions], Published]


@dataclass(frozen=True)
class Watch:
    """A folder, and when what arrives there is whole.

    ``marker``: folders are taken only when they hold a file of this name. Otherwise one with a usual marker is taken at
    once, and anything else, bare files too, when nothing in it changed for ``settle_s`` seconds: a folder that was
    written elsewhere and renamed in is at rest when it arrives.
    """

    outbox: Path
    settle_s: float = 5.0
    marker: str | None = None


@dataclass(frozen=True)
class Arrival:
    """Something in the outbox, for the model ``name``."""

    name: str
    path: Path


def follow(watch: Watch, options: PublishOptions, *, once: bool = False, publish: Publish = run) -> int:
    """Publish what arrives, until Ctrl-C or SIGTERM; with ``once`` what is whole now. Returns the exit code.

    That is 0 for a stop that was asked for; with ``once`` it is 1 when something was refused.
    Raises: RepositoryError when somebody else watches the outbox.
    """
    outbox = watch.outbox.absolute()
    outbox.mkdir(parents=True, exist_ok=True)
    refused = 0
    with _alone(outbox) as clock, _stopping():
        try:
            console.print(
                f"watching {outbox} for {options.repository}" + ("" if once else "; Ctrl-C stops it"), markup=False
            )
            postponed: dict[Path, float] = {}
            told: set[Path] = set()
            while True:
                now = _file_system_now(clock)
                for arrival in arrivals(outbox, told):
                    if time.monotonic() < postponed.get(arrival.path, 0.0) or not is_whole(arrival.path, watch, now):
                        continue
                    done = _take(arrival, outbox, options, publish)
                    if done is None:
                        postponed[arrival.path] = time.monotonic() + AGAIN_AFTER_S
                    elif not done:
                        refused += 1
                if once:
                    return 1 if refused else 0
                time.sleep(LOOK_EVERY_S)
        except KeyboardInterrupt:
            console.print("stopped: what was not published yet is taken up at the next start")
            return 0


def arrivals(outbox: Path, told: set[Path] | None = None) -> Iterator[Arrival]:
    """What lies in the outbox, oldest first; ``told`` remembers what was said to be none of it."""
    found: list[Arrival] = []
    for path in _visible(outbox):
        if path.is_dir():
            for inside in _visible(path):
                if inside.is_dir() or inside.suffix == ".onnx":
                    found.append(Arrival(path.name, inside))
                else:
                    _tell_once(inside, told)
        elif path.suffix == ".onnx":
            found.append(Arrival(path.stem, path))
        else:
            _tell_once(path, told)
    yield from sorted(found, key=lambda a: (_modified(a.path), a.path))


def is_whole(path: Path, watch: Watch, now: float) -> bool:
    """Whether an arrival is complete; ``now`` is a time of the outbox's own file system, in Unix seconds."""
    if path.is_dir():
        if watch.marker is not None:
            return (path / watch.marker).exists()
        if any((path / marker).exists() for marker in MARKERS):
            return True
    last = last_change(path)
    return last is not None and now - last >= watch.settle_s


def last_change(path: Path) -> float | None:
    """When anything in a file or folder last changed, in Unix seconds; None for what is empty, or went meanwhile.

    The ctime counts as well, which copies that keep old mtimes cannot hide; but a folder's own ctime does not: being
    renamed in changes that, and nothing else.
    """
    newest = None
    try:
        if path.is_file():
            status = path.stat()
            return max(status.st_mtime, status.st_ctime) if status.st_size else None
        for place, _, files in os.walk(path):
            for entry in (Path(place), *(Path(place, f) for f in files)):
                status = entry.stat()
                changed = status.st_mtime if entry == path else max(status.st_mtime, status.st_ctime)
                newest = max(newest or 0.0, changed)
        return newest if any(files for _, _, files in os.walk(path)) else None
    except OSError:
        return None  # it changes now


def _take(arrival: Arrival, outbox: Path, options: PublishOptions, publish: Publish) -> bool | None:
    """Publish one arrival, and put it away; whether it was published, None when it is to be tried again."""
    name = str(arrival.path.relative_to(outbox))
    console.print(f"{name}: arrived", markup=False)
    try:
        done = publish(arrival.path, replace(options, as_name=arrival.name, by="watch"))
    except ConchError as error:
        if isinstance(error, Busy | ServerUnavailable) or isinstance(error.__cause__, Busy | ServerUnavailable):
            console.print(f"{name}: not now, tried again in {AGAIN_AFTER_S:g} s: {error}", markup=False)
            return None
        console.print(f"{name}: {error}", markup=False)
        _put_away(arrival, outbox / FAILED, {"error": error.what, **_parts(error)})
        return False
    except Exception as error:  # one arrival must not end the watch
        console.print(f"{name}: {type(error).__name__}: {error}", markup=False)
        _put_away(arrival, outbox / FAILED, {"error": f"{type(error).__name__}: {error}"})
        return False
    published_report.show(done)
    _put_away(arrival, outbox / PUBLISHED, published_report.document(done))
    return True


def _parts(error: ConchError) -> Mapping[str, Any]:
    rows = {"where": error.where, "got": error.got, "expected": error.expected, "fix": error.fix}
    return {key: str(value) for key, value in rows.items() if value is not None}


def _put_away(arrival: Arrival, where: Path, report: Mapping[str, Any]) -> None:
    """Move an arrival out of the way, and write its report beside it: the report first, so that it is never missing."""
    folder = where / arrival.name
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(timezone.utc)
    target = folder / arrival.path.name
    if target.exists():
        target = folder / f"{arrival.path.stem}.{moment:%Y%m%dT%H%M%S%f}{arrival.path.suffix}"
    document = {"at": moment.isoformat(timespec="seconds"), "source": str(arrival.path), **report}
    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    target.with_name(target.name + ".report.json").write_text(text + "\n", encoding="utf-8")
    os.rename(arrival.path, target)


def _visible(folder: Path) -> list[Path]:
    try:
        listed = sorted(folder.iterdir())
    except OSError:
        return []  # it went meanwhile
    return [p for p in listed if not p.name.startswith(".") and p.suffix not in _ON_THEIR_WAY]


def _tell_once(path: Path, told: set[Path] | None) -> None:
    if told is not None and path not in told and path.name not in MARKERS:
        told.add(path)
        console.print(f"{path.name} is left alone: a version is a folder or an ONNX file", markup=False)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _file_system_now(clock: Path) -> float:
    """The time as the file system has it: on a network its clock is not ours."""
    os.utime(clock)
    return clock.stat().st_mtime


@contextmanager
def _alone(outbox: Path) -> Iterator[Path]:
    """Hold the outbox's lock; gives the file that is its clock. Raises: RepositoryError when it is taken."""
    path = outbox / ".watch"
    with open(path, "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RepositoryError(
                "somebody else watches this folder", where=outbox, fix="one is enough; end the other first"
            ) from error
        yield path


@contextmanager
def _stopping() -> Iterator[None]:
    """Turn SIGTERM into what Ctrl-C is."""

    def handle(number: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
