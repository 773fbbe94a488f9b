"""`conch repo rollback` and `promote`: which version is meant, and letting it serve."""

from __future__ import annotations

from pathlib import Path

from conch import ledger
from conch.errors import RepositoryError
from conch.ledger import Alias
from conch.repository import Repository
from server.repo_view.live_states import Server
from server.rollout import switch, verify
from server.rollout.activate import activate
from server.rollout.live import Live
from server.rollout.locks import changing
from server.rollout.publish import connected
from server.rollout.recover import recover
from server.rollout.scratch_repository import serving_versions
from server.rollout.switch import Switched, Verify


def roll_back(root: Path, name: str, version: int | None, server: Server) -> Switched:
    """Let an earlier version serve: the one before, unless one is named. Raises: RepositoryError, ServerError."""
    repository = Repository(root)
    repository.model_path(name)
    with connected(repository, server) as live, changing(repository, name, "rollback"):
        recover(repository, live)
        chosen = version if version is not None else version_before(repository, name)
        repository.version_path(name, chosen)
        check = verify.of_versions(live, repository, dict(server.headers))
        return activate(repository, name, chosen, live, check, by="rollback")


def version_before(repository: Repository, name: str) -> int:
    """The version that served before the one that serves: by the history, or else the next lower one.

    Raises: RepositoryError when there is none.
    """
    now = serving_versions(repository).get(name)
    there = repository.versions(name)
    history: list[int] = []
    for served in ledger.read(repository.root).history.get(name, ()):
        # Going back twice goes back further: a version that serves again takes away what came after it.
        at = history.index(served.version) if served.version in history else len(history)
        history[at:] = [served.version]
    if now in history:
        history = history[: history.index(now)]
    before = [v for v in history if v in there and v != now] or [v for v in there if now is None or v < now]
    if not before:
        raise RepositoryError(
            f"{name} has no version to go back to",
            where=repository.root / name,
            got=f"versions {', '.join(map(str, there)) or 'none'}, of which {now or 'none'} serves",
            fix="name one that is there with --to, or publish one",
        )
    return before[-1]


def promote(root: Path, text: str, version: int | None, server: Server) -> Switched:
    """Let a version serve that is there: the latest, number N, or a canary. Raises: RepositoryError, ServerError."""
    repository = Repository(root)
    name = text.partition("@")[0]
    with connected(repository, server) as live, changing(repository, name, "promotion"):
        recover(repository, live)
        check = verify.of_versions(live, repository, dict(server.headers))
        if ledger.is_alias(text):
            alias = ledger.resolve(ledger.read(repository.root), text)
            if version not in (None, alias.version):
                raise RepositoryError(
                    f"{text} is another version", got=version, expected=alias.version, fix=f"conch repo promote {text}"
                )
            if alias.model != name:
                return _promote_canary(repository, text, alias, live, check)
            version = alias.version
        chosen = version if version is not None else repository.latest(name)
        repository.version_path(name, chosen)
        return activate(repository, name, chosen, live, check, by="promote")


def _promote_canary(repository: Repository, text: str, alias: Alias, live: Live, check: Verify) -> Switched:
    """Publish a canary. Its alias leads to the side model until the version serves, then to that; then it goes."""
    name, _, alias_name = text.partition("@")

    def follow(version: int) -> None:
        ledger.update(repository.root, lambda now: now.with_alias(name, alias_name, Alias(name, version)))

    done = switch.complete(repository, name, alias.version, live, verify=check, published=follow)
    ledger.update(repository.root, lambda now: now.with_alias(name, alias_name, None))
    return done
