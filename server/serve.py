"""Serve in the foreground: say where and what, report what changes, stop cleanly when told to."""

from __future__ import annotations

import re
import signal
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from conch.errors import ConchError, RepositoryError, ServerError
from conch.manifest import MANIFEST_FILE, Manifest
from conch.terminal import console, print_table
from server import http_api, running
from server.http_api import ModelState
from server.lifecycle import UNLOADED, TritonServer
from server.load_failures import advice, tail, tidy

LOOK_EVERY_S = 1.0
# What these files log of a failed load is reported in our words, from the repository index.
_STUB_FAILED = re.compile(r" pb_stub\.cc:\d+\]  Failed to initialize Python stub")
_TOLD_OTHERWISE = re.compile(r" E \d+ (?:model_lifecycle|model_repository_manager)\.cc|^\[libprotobuf ERROR")
# Without a GPU there is no pinned memory to have: nothing that anybody could mend.
_HARMLESS = re.compile(r" W \d+ pinned_memory_manager\.cc:\d+\] .*no pinned memory pool")


def serve(server: TritonServer) -> int:
    """Run until Ctrl-C, SIGTERM or the server's end; returns the exit code, 0 for a stop that was asked for.

    A second Ctrl-C does not wait for requests in flight. Raises: ConchError.
    """
    with _stop_signals() as asked:
        try:
            console.print("starting Triton, loading models ...")
            server.start()
            with ExitStack() as found:
                for root in server.repositories:
                    found.enter_context(
                        running.announce(root, server.http_url, server.grpc_url, server.options.control)
                    )
                announce(server)
                _watch(server)
        except KeyboardInterrupt:
            console.print("stopping: requests in flight are finished first; Ctrl-C again ends them")
        finally:
            _stop(server, asked)
    console.print("stopped")
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int]]:
    """Turn SIGTERM into what Ctrl-C is; yields a function that counts how often either came."""
    count = 0

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal count
        count += 1
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield lambda: count
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _stop(server: TritonServer, asked: Callable[[], int]) -> None:
    try:
        if asked() > 1:
            server.kill()
        server.stop()
    except KeyboardInterrupt:
        server.kill()
        server.stop()


def announce(server: TritonServer) -> None:
    """Print the addresses, the models that are ready, and those that are not and why."""
    console.print(f"HTTP     {server.http_url}")
    console.print(f"gRPC     {server.grpc_url}")
    if server.options.metrics.enabled:
        console.print(f"metrics  {server.metrics_url}")
    console.print()
    ready = sorted({(r.name, r.version) for r in server.index() if r.state == "READY"})
    if ready:
        rows = [(name, version, *_tensors(server, name, version)) for name, version in ready]
        print_table(("Model", "Version", "Takes", "Gives"), rows)
    else:
        console.print("no model is ready" + _how_to_get_one(server))
    for failed in server.failures():
        console.print(_did_not_load(failed), markup=False)
    console.print("\nCtrl-C stops it")


def _how_to_get_one(server: TritonServer) -> str:
    if server.options.control == "poll":
        return ": one that is exported into the repository is loaded without a restart"
    if server.options.control == "explicit":
        return ": load one by name, or name it with --load-model"
    return ""


def _tensors(server: TritonServer, name: str, version: str) -> tuple[str, str]:
    """The names of a model's inputs and outputs; empty where the server does not tell."""
    headers = server.options.headers("http", "metadata")
    try:
        answer = http_api.ask(server.http_url, f"/v2/models/{name}/versions/{version}", headers)
    except ConchError:
        return "", ""
    return tuple(", ".join(t["name"] for t in answer.get(kind, [])) for kind in ("inputs", "outputs"))  # type: ignore[return-value]


def _did_not_load(failed: ModelState, came_from: str = "") -> str:
    version = f" version {failed.version}" if failed.version else ""
    line = f"not served: {failed.name}{version}: {failed.reason}\n"
    if came_from:
        line += f"  from:     {came_from}\n"
    return f"{line}  fix:      {advice(failed)}"


def origin(repositories: Sequence[Path], row: ModelState) -> str:
    """Where a version comes from and since when, by its manifest; empty where it has none that can be read."""
    for root in repositories:
        path = root / row.name / row.version / MANIFEST_FILE
        if row.version and path.is_file():
            try:
                manifest = Manifest.read(path)
            except RepositoryError:
                return ""
            return f"{describe_source(manifest.source)}, of {manifest.created_at}"
    return ""


def describe_source(source: Mapping[str, Any]) -> str:
    """A manifest's source in a few words: its kind, and the name or path that it was known by."""
    kind = str(source.get("kind", "an unknown source"))
    names = ("model", "factory", "path", "estimator", "file")
    known_as = next((str(source[key]) for key in names if source.get(key)), "")
    return f"{kind} {known_as}".strip()


def _watch(server: TritonServer) -> None:
    """Report until the server ends. Raises: ServerError when it does."""
    known = _states(server) or {}
    _, position = server.log_since(0)
    while server.wait(LOOK_EVERY_S) is None:
        logged, position = server.log_since(position)
        for line in worth_showing(logged.splitlines()):
            console.print(line, markup=False, soft_wrap=True)
        states = _states(server)
        if states is not None:
            now = settled(known, states)
            for line in changes(known, now, lambda row: origin(server.repositories, row)):
                console.print(line, markup=False)
            known = now
    raise ServerError(
        f"Triton ended by itself (exit code {server.exit_code()})",
        got=f"the end of its log:\n{tail(server.log())}",
        fix="start it again; a code above 128 is a signal: 137 is often the kernel, out of memory",
    )


States = dict[tuple[str, str], ModelState]


def _states(server: TritonServer) -> States | None:
    try:
        return {(r.name, r.version): r for r in server.index()}
    except ConchError:
        return None  # it ends, or is too busy to say: the next look tells


def settled(before: States, after: States) -> States:
    """The later look, with what is on its way left as it was. Pure.

    In poll mode Triton tries a model that failed at every look: that is nothing to tell.
    """
    result = {}
    for key, row in after.items():
        if row.state not in ("LOADING", "UNLOADING"):
            result[key] = row
        elif key in before:
            result[key] = before[key]
    return result


def changes(before: States, after: States, origin: Callable[[ModelState], str] = lambda row: "") -> list[str]:
    """What to tell of two looks at the repository index, a line each; ``origin`` says where a version is from. Pure."""
    lines = []
    for key, row in sorted(after.items()):
        old = before.get(key)
        if old is not None and (old.state, old.reason) == (row.state, row.reason):
            continue
        if row.state == "READY":
            came_from = origin(row)
            lines.append(f"{row.name} version {row.version} is ready" + (f": {came_from}" if came_from else ""))
        elif row.state == "UNAVAILABLE" and row.reason == UNLOADED:
            lines.append(f"{row.name} version {row.version} is no longer served")
        elif row.state == "UNAVAILABLE":
            lines.append(_did_not_load(ModelState(row.name, row.version, row.state, tidy(row.reason)), origin(row)))
    gone = {key for key, row in before.items() if row.state == "READY"} - after.keys()
    return lines + [f"{name} version {version} is no longer served" for name, version in sorted(gone)]


def worth_showing(lines: Iterable[str]) -> list[str]:
    """Log lines without what says nothing new: failed loads are reported from the repository index. Pure."""
    shown, in_trace = [], False
    for line in lines:
        if in_trace and (not line.strip() or line == "At:" or line.startswith("  ")):
            continue
        in_trace = bool(_STUB_FAILED.search(line))
        if line.strip() and not in_trace and not _TOLD_OTHERWISE.search(line) and not _HARMLESS.search(line):
            shown.append(line)
    return shown
