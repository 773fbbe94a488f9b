"""The path of a publish, top to bottom: from a source to the version that serves.

Everything before the switch happens in a stage and in a scratch server, so a failure leaves files and serving as they
were; the switch itself takes back what it did when the live server does not answer rightly.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conch import ledger
from conch.errors import ConchError, RepositoryError, ServerError
from conch.ledger import Alias
from conch.manifest import Golden
from conch.repository import Repository, Stage
from server import binary
from server.repo_view.live_states import Server
from server.rollout import candidate as candidates
from server.rollout import changes, manifests, scratch_repository, staged_lint, switch, trial, verify
from server.rollout.answers import Limits
from server.rollout.candidate import Candidate, ConfigChoice
from server.rollout.changes import ModelChanges
from server.rollout.live import Live
from server.rollout.locks import changing
from server.rollout.recover import recover
from server.rollout.trial import Asked, Expectations, Tried
from server.running import find_running

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PublishOptions:
    """How to publish. ``alias`` brings the version up beside what serves, under that name, and switches nothing.

    ``version`` None takes the next number; ``p99_ms`` None measures nothing; ``also`` are live models that the
    candidate calls by itself; ``new_tensors`` lets the public tensors change; ``sign_key`` and ``verify_key`` are
    files of keys; ``by`` goes into the history.
    """

    repository: Path = Path("model_repository")
    as_name: str | None = None
    config: ConfigChoice = ConfigChoice()  # noqa: RUF009  (frozen)
    version: int | None = None
    server: Server = Server()  # noqa: RUF009  (frozen)
    golden: tuple[Golden, ...] = ()
    tolerance: float | None = None
    p99_ms: float | None = None
    trial: bool = True
    also: tuple[str, ...] = ()
    target: str | None = None
    dry_run: bool = False
    keep_loaded: bool = False
    new_tensors: bool = False
    alias: str | None = None
    sign_key: Path | None = None
    verify_key: Path | None = None
    by: str = "publish"


@dataclass(frozen=True)
class Published:
    """What came of it.

    ``outcome`` is "published", "beside" (with --alias), "dry run", or "already there". ``served_as`` is the model to
    ask Triton for. ``previous`` served before. ``warnings`` are not errors, and should be read.
    """

    name: str
    version: int
    outcome: str
    served_as: str
    previous: int | None = None
    changes: tuple[ModelChanges, ...] = ()
    tried: Tried | None = None
    warnings: tuple[str, ...] = ()
    server: str = ""
    recovered: str | None = None
    steps_s: Mapping[str, float] = field(default_factory=dict)


class PublishError(RepositoryError):
    """A publish stopped before anything changed, or took back what it had changed."""


@dataclass
class Steps:
    """Remembers which step runs, and how long each took."""

    tell: Tell
    current: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One step."""
        self.current = name
        self.tell(name)
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.current = ""


def run(source: Path, options: PublishOptions, tell: Tell = lambda step: None) -> Published:
    """Publish a source. ``tell`` is called with the name of each step.

    Raises: PublishError, saying which step failed and why; locks.Busy when the same model is being changed.
    """
    repository = Repository(options.repository)
    steps = Steps(tell)
    name = options.as_name or source.name
    try:
        with ExitStack() as stack:
            with steps("read the source"):
                candidate = candidates.find(source, repository, options.as_name, options.config)
                name = candidate.name
            with steps("connect"):
                live = stack.enter_context(connected(repository, options.server))
            stack.enter_context(changing(repository, candidate.names))
            recovered = None
            if not options.dry_run:
                with steps("recover"):
                    recovered = recover(repository, live)
            stage = stack.enter_context(repository.stage())
            return _publish(candidate, repository, stage, live, options, steps, recovered)
    except ConchError as error:
        if not steps.current:
            raise
        raise PublishError(
            f"{name} was not published: {steps.current}: {error.what}",
            where=error.where,
            got=error.got,
            expected=error.expected,
            fix=error.fix or "mend the source; what serves is as it was",
        ) from error


def _publish(
    candidate: Candidate,
    repository: Repository,
    stage: Stage,
    live: Live,
    options: PublishOptions,
    steps: Steps,
    recovered: str | None,
) -> Published:
    name = candidate.name
    serving = scratch_repository.serving_versions(repository)
    with steps("stage"):
        manifests.copy(candidate, stage)
    with steps("check the files"):
        manifests.check(candidate, stage, options.verify_key)
        same = switch.already_there(stage) if options.alias is None else None
        if same is not None:
            return Published(name, same, "already there", name, same, server=live.url, recovered=recovered)
        number = _number(candidate, repository, options.version)
    expect = Expectations(options.golden, trial.serving_manifests(repository, serving), Limits(options.tolerance))
    if options.alias is None and not options.new_tensors:
        with steps("compare the tensors"):
            _check_tensors(candidate, repository)
    with steps("lint"):
        folders = {n: stage.path / n for n in candidate.names}
        told = tuple(
            changes.of_model(m, folders[m.name] / "1", repository, serving.get(m.name)) for m in candidate.models
        )
        scratch = scratch_repository.lay_out(
            stage.path.parent / "trial",
            folders,
            {m.name: m.config for m in candidate.models},
            repository,
            number,
            also=options.also,
            before=name if options.p99_ms is not None else None,
            gpu=binary.has_gpu(),
        )
        warnings = staged_lint.check(scratch, candidate, repository, options.target)
    tried = None
    if options.trial:
        with ExitStack() as running:
            with steps("trial load"):
                scratch_server = running.enter_context(trial.load(scratch))
            with steps("golden requests"):
                tried = trial.run(scratch_server, candidate, expect)
            if options.p99_ms is not None:
                with steps("latency"):
                    tried = trial.with_latency(scratch_server, candidate, tried, options.p99_ms)
    with steps("write the manifests"):
        asked: Mapping[str, Asked] = tried.asked if tried is not None else {}
        warnings += scratch.notes + manifests.write(candidate, stage, asked, options.sign_key)
    if options.dry_run:
        outcome = Published(name, number, "dry run", name, serving.get(name), told, tried, warnings, live.url)
    elif options.alias is not None:
        with steps("bring it up beside what serves"):
            check = verify.on(live, candidate, expect, tried, dict(options.server.headers))
            beside = switch.side_by_side(stage, live, verify=check, version=options.version)
            _set_alias(repository, live, name, options.alias, Alias(beside.model, beside.version))
        outcome = Published(
            name, beside.version, "beside", beside.model, serving.get(name), told, tried, warnings, live.url
        )
    else:
        with steps("switch"):
            check = verify.on(live, candidate, expect, tried, dict(options.server.headers))
            done = switch.publish(
                stage, live, verify=check, keep_loaded=options.keep_loaded, version=options.version, by=options.by
            )
        warnings += done.warnings
        outcome = Published(name, done.version, "published", name, done.previous, told, tried, warnings, live.url)
    return dataclasses.replace(outcome, recovered=recovered, steps_s=dict(steps.seconds))


@contextmanager
def connected(repository: Repository, server: Server) -> Iterator[Live]:
    """The server that is to take the change, or none. Raises: ServerError, when one was found that takes no changes."""
    found = None if server.url or server.none else find_running(repository.root)
    if found is not None and found.control == "none":
        raise ServerError(
            f"the server that serves the repository (pid {found.pid}) takes no changes",
            where=found.grpc_url,
            got="--control none",
            fix="restart it with --control poll or explicit, or change the files only: --no-server",
        )
    with server.connect(repository.root) as live:
        yield live


def _check_tensors(candidate: Candidate, repository: Repository) -> None:
    """Raise RepositoryError when requests that the public model answers now would fail."""
    before = candidates.live_config(repository, candidate.name)
    after = next(model.config for model in candidate.models if model.name == candidate.name)
    found = changes.breaking(before, after) if before is not None else []
    if found:
        raise RepositoryError(
            f"clients of {candidate.name} would break",
            where=repository.root / candidate.name,
            got="; ".join(found),
            expected="the tensors that it has now",
            fix="publish it under another name (--as); if no client minds: --new-tensors",
        )


def _number(candidate: Candidate, repository: Repository, wanted: int | None) -> int:
    """The number that the version will have. Raises: RepositoryError when the one that is wanted cannot serve."""
    there = [v for n in candidate.names if (repository.root / n).is_dir() for v in repository.versions(n)]
    following = max(there, default=0) + 1
    if wanted is None or wanted >= following:
        return wanted or following
    raise RepositoryError(
        f"version {wanted} of {candidate.name} exists"
        if wanted in there
        else f"version {wanted} of {candidate.name} would not serve: later ones are there",
        where=repository.root / candidate.name,
        got=wanted,
        expected=f"{following} or more: a version never changes",
        fix="leave --version out",
    )


def _set_alias(repository: Repository, live: Live, name: str, alias_name: str, alias: Alias) -> None:
    """Let the alias name the new side model, with the weight that it had; its old side model goes."""
    old = ledger.read(repository.root).aliases.get(name, {}).get(alias_name)
    weight = old.weight if old is not None else 0.0
    new = dataclasses.replace(alias, weight=weight)
    after = ledger.update(repository.root, lambda now: now.with_alias(name, alias_name, new))
    still_named = {a.model for a in after.aliases.get(name, {}).values()}
    if old is not None and old.model != name and old.model not in still_named:
        switch.take_down(repository, name, old.version, live)
