"""A scratch server on which two sets of settings stand side by side, and are measured in turns.

Each stands under names of its own (NAME.tune-a, NAME.tune-b; a pipeline with its members), so that both are loaded and
one waits idle while the other is asked: a turn costs no load. Other settings are a config.pbtxt that is replaced and a
load call; the server is never started again. The live repository is only linked to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conch.errors import ConchError
from conch.model_config import CONFIG_FILE, ModelConfigMessage, render
from conch.repository import Repository
from conch.switching import files, side_models
from perf.tune.search import FINAL, LONGER, SHORT, Duel, Reading
from perf.tune.settings import Tuning, with_tuning
from perf.tune.tunable import Subject

if TYPE_CHECKING:
    from server.control import Control

SIDES = ("a", "b")
LOADS_AT_ONCE = 4

# (windows' length in ms, turns of each side) by rung. A measurement is three windows; turns go a b, then b a.
LOOKS = {SHORT: (400, 1), LONGER: (700, 2), FINAL: (1500, 2)}
# A window of fewer answers says little of the p99.
ANSWERS_A_WINDOW = 60
# Of the whole time, what one comparison may take by rung: slow models would else be compared a few times only.
SHARE = {SHORT: 0.03, LONGER: 0.07, FINAL: 0.12}
WINDOWS = 3
SHORTEST_WINDOW_MS = 200
REQUESTS_A_WINDOW = 4
START_TIMEOUT_S = 600.0

# Measure a served model: its name, how many requests are in flight, the window's length in ms.
Measure = Callable[[str, int, int], Reading]


def tuned_config(subject: Subject, model: str, tuning: Tuning) -> ModelConfigMessage:
    """The config of one model with its settings, in the variant that the tuning names."""
    config = subject.base(tuning.version)[model]
    for tunable in subject.tunables:
        if tunable.name == model:
            return with_tuning(config, tuning.of(model), tunable.thread_parameter, tunable.pad_parameter)
    return config


@dataclass
class _Side:
    """One of two sets of models in the scratch repository, and what it holds now."""

    root: Path
    staging: Path
    letter: str
    subject: Subject
    live: Repository
    gpu: bool
    holds: Tuning | None = None

    def name(self, model: str) -> str:
        return f"{model}.tune-{self.letter}"

    def put(self, tuning: Tuning, control: Control) -> None:
        """Serve these settings here. Raises: ConchError; what is held is then unknown."""
        changed = [model for model in self.subject.configs if self._write(model, tuning)]
        self.holds = None
        ensembles = [m for m in changed if self.subject.configs[m].HasField("ensemble_scheduling")]
        with ThreadPoolExecutor(LOADS_AT_ONCE) as pool:
            list(pool.map(control.load, [self.name(m) for m in changed if m not in ensembles]))
        for model in ensembles:  # their members are there by now
            control.load(self.name(model))
        self.holds = tuning

    def _write(self, model: str, tuning: Tuning) -> bool:
        from server.rollout.scratch_repository import adapted, show_version

        folder = self.root / self.name(model)
        number = self.subject.number(model, tuning.version)
        steps = {member: (self.name(member), -1) for member in self.subject.configs}
        config = side_models.config_of(tuned_config(self.subject, model, tuning), self.name(model), steps)
        text = render(adapted(config, self.gpu, []))
        if self.holds is not None and files.read_config_text(folder) == text and (folder / str(number)).exists():
            return False
        if not folder.is_dir():
            folder.mkdir()
            for beside in sorted((self.live.root / model).iterdir()):
                if beside.is_file() and beside.name != CONFIG_FILE:
                    (folder / beside.name).symlink_to(beside)
        for version in files.versions_in(folder):
            if version != number:
                _remove(folder / str(version))
        if not (folder / str(number)).exists():
            show_version(self.live.version_path(model, number), folder / str(number))
        files.write_config(folder, text, self.staging)
        return True


class ScratchArena:
    """Measures settings against each other on a server of its own; made by `scratch_arena`."""

    def __init__(
        self,
        sides: tuple[_Side, _Side],
        grpc_url: str,
        control: Control,
        measure: Measure,
        concurrency: int,
        budget_s: float,
    ) -> None:
        self.grpc_url = grpc_url
        self.concurrency = concurrency
        self.budget_s = budget_s
        self.may_ease = False
        self._sides = sides
        self._control = control
        self._measure = measure
        self._best_per_second = 0.0
        self._one_ms = 0.0
        self._duels = 0

    def duel(self, best: Tuning, other: Tuning, rung: int) -> Duel | str:
        """Measure both in turns. Raises: ConchError when the best, which was served before, is not any more."""
        first = self._serve(best, besides=other)
        try:
            second = self._serve(other, besides=best)
        except ConchError as error:
            return str(error)
        window_ms, turns = self._window_ms(rung), LOOKS[rung][1]
        self._duels += 1
        order = [(first, second), (second, first)]
        readings: dict[str, list[Reading]] = {first.letter: [], second.letter: []}
        for turn in range(turns):
            for side in order[(self._duels + turn) % 2]:
                try:
                    readings[side.letter].append(self._read(side, window_ms))
                except ConchError as error:
                    if side is first:
                        raise
                    return str(error)
        duel = Duel(_together(readings[first.letter]), _together(readings[second.letter]))
        self._best_per_second = duel.best.requests_per_second
        return duel

    def ease(self) -> bool:
        """Halve what is in flight."""
        if not self.may_ease or self.concurrency == 1:
            return False
        self.concurrency //= 2
        return True

    def alone(self, tuning: Tuning, window_ms: int) -> Reading:
        """Measure one set of settings by itself, as an exhaustive grid does. Raises: ConchError."""
        return self._read(self._serve(tuning), window_ms)

    def shares(self, tuning: Tuning) -> Mapping[str, float]:
        """The part of a request's time that each model takes, 0 to 1, since the server began to count."""
        side = self._serve(tuning)
        spent = {}
        for model, config in side.subject.configs.items():
            if not config.HasField("ensemble_scheduling"):
                spent[model] = self._spent_ns(side.name(model))
        total = sum(spent.values())
        return {model: ns / total for model, ns in spent.items()} if total else dict.fromkeys(spent, 1.0)

    def _spent_ns(self, name: str) -> int:
        import tritonclient.grpc as grpcclient

        with contextlib.closing(grpcclient.InferenceServerClient(self.grpc_url.partition("://")[2])) as client:
            found = client.get_inference_statistics(name)
        return sum(row.inference_stats.compute_infer.ns for row in found.model_stats)

    def _serve(self, tuning: Tuning, besides: Tuning | None = None) -> _Side:
        """The side that serves these settings; the one that holds ``besides`` is left as it is."""
        for side in self._sides:
            if side.holds == tuning:
                return side
        free = [side for side in self._sides if besides is None or side.holds != besides]
        side = next((s for s in free if s.holds is None), free[0])
        side.put(tuning, self._control)
        try:
            self._check(side, tuning)
        except ConchError:
            side.holds = None
            raise
        return side

    def _check(self, side: _Side, tuning: Tuning) -> None:
        """Ask the golden requests, or one made up: wrong answers are no gain. Raises: RepositoryError."""
        from clients import Client
        from server.rollout.asking import put, served
        from server.rollout.trial import manifest_of, recorded_or_made_up

        subject = side.subject
        manifest = manifest_of(side.live, subject.name, tuning.version)
        with Client(self.grpc_url, timeout_s=120.0, retries=0) as client:
            model = served(client, side.name(subject.name), subject.number(subject.name, tuning.version))
            for request in recorded_or_made_up(manifest, model.signature):
                put(model, request, manifest.parity if manifest is not None else ())
            begun = time.monotonic()
            model.ask(request.inputs)
            self._one_ms = (time.monotonic() - begun) * 1000

    def _window_ms(self, rung: int) -> int:
        """A window that holds enough answers, within the share of the time that a comparison has."""
        wanted_ms, turns = LOOKS[rung]
        if self._best_per_second:
            wanted_ms = max(wanted_ms, int(ANSWERS_A_WINDOW / self._best_per_second * 1000))
        most_ms = int(self.budget_s * 1000 * SHARE[rung] / (WINDOWS * 2 * turns))
        # A window in which no request ends is no measurement.
        return max(SHORTEST_WINDOW_MS, int(REQUESTS_A_WINDOW * self._one_ms), min(wanted_ms, most_ms))

    def _read(self, side: _Side, window_ms: int) -> Reading:
        return self._measure(side.name(side.subject.name), self.concurrency, window_ms)


@contextmanager
def scratch_arena(
    live: Repository, subject: Subject, concurrency: int, budget_s: float, measure_at: Callable[[str, str], Measure]
) -> Iterator[ScratchArena]:
    """An arena on a server of its own, until the block ends.

    ``budget_s`` is all the time that there is; ``measure_at`` is given the HTTP and the gRPC address.
    Raises: ServerError.
    """
    from server.control import Control
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions
    from server.rollout.trial import can_run

    if not can_run():
        raise ConchError(
            "There is no Triton on this machine to try settings on",
            expected="the package nvidia-pytriton",
            fix="pip install -e '.[server]', or tune on a machine like the one that serves",
        )
    options = ServerOptions(control="explicit", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with tempfile.TemporaryDirectory(prefix="conch-tune-") as folder:
        root, staging = Path(folder) / "repository", Path(folder) / "staging"
        root.mkdir()
        staging.mkdir()
        server = EmbeddedServer(root, options, start_timeout_s=START_TIMEOUT_S)
        try:
            with server, Control(server.grpc_url, timeout_s=START_TIMEOUT_S) as control:
                first, second = (_Side(root, staging, letter, subject, live, _has_gpu()) for letter in SIDES)
                measure = measure_at(server.http_url, server.grpc_url)
                try:
                    yield ScratchArena((first, second), server.grpc_url, control, measure, concurrency, budget_s)
                finally:
                    server.kill()  # nobody else asks it: there is nothing to wait for
        finally:
            server.stop()


def _has_gpu() -> bool:
    from server.binary import has_gpu

    return has_gpu()


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def _together(readings: list[Reading]) -> Reading:
    """Several turns as one: mean rates, and mean latencies of the turns."""
    count = len(readings)
    means: dict[str, Any] = {
        field: sum(getattr(r, field) for r in readings) / count for field in ("requests_per_second", "p50_ms", "p99_ms")
    }
    return dataclasses.replace(readings[0], **means, failures=sum(r.failures for r in readings))
