"""Write the best settings into the repository: every config.pbtxt that changes in one safe switch, or none.

The switch is that of a publish: journalled, taken by the server that runs, asked afterwards, and taken back whole when
anything fails. Comments in the files stay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conch import ledger
from conch.errors import RepositoryError
from conch.lint.config_edit import edited
from conch.repository import Repository
from conch.switching import files, journal, plan
from conch.switching.journal import Journal, Part
from conch.switching.taker import NoServer, Taker
from perf.tune.settings import Tuning, with_tuning
from perf.tune.tunable import Subject


@dataclass(frozen=True)
class Written:
    """What was written: the models whose config.pbtxt changed; ``server`` took it ("" where none runs)."""

    models: tuple[str, ...]
    server: str = ""
    comments_kept: bool = True


def new_texts(repository: Repository, subject: Subject, tuning: Tuning) -> dict[str, tuple[str, str, bool]]:
    """The config texts that change, by model: before, after, and whether all comments are kept.

    Raises: RepositoryError when somebody changed a config since it was read.
    """
    found = {}
    for tunable in subject.tunables:
        config = repository.config(tunable.name)
        if tuning.version == subject.version and config != subject.configs[tunable.name]:
            raise RepositoryError(
                f"the config.pbtxt of {tunable.name} was changed while it was being tuned",
                where=repository.root / tunable.name,
                fix="tune again: what was measured is not what is there",
            )
        after = with_tuning(config, tuning.of(tunable.name), tunable.thread_parameter, tunable.pad_parameter)
        if after != config:
            text = files.read_config_text(repository.root / tunable.name) or ""
            changed = edited(text, config, after)
            found[tunable.name] = (text, changed.text, changed.comments_kept)
    return found


def write_back(
    repository: Repository,
    subject: Subject,
    tuning: Tuning,
    *,
    server: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Written:
    """Make the settings those of the repository, and of the server that serves it, if one runs.

    ``server`` is its gRPC address, where it is not to be found by itself. Another precision is another version: it is
    promoted first. Raises: RepositoryError, ModelLoadError, ServerError; everything is then as it was.
    """
    from server.repo_view.live_states import Server
    from server.rollout import verify
    from server.rollout.activate import activate
    from server.rollout.locks import changing
    from server.rollout.publish import connected
    from server.rollout.recover import recover
    from server.rollout.switch import carry_out

    models = list(subject.configs)
    named = Server(server, tuple(headers))
    with connected(repository, named) as live, changing(repository, models, "tune"):
        recover(repository, live)
        if not live.served(subject.name):
            live = NoServer()  # the server does not serve it: it is not made to
        check = verify.of_versions(live, repository, dict(headers))
        texts = new_texts(repository, subject, tuning) if tuning.version == subject.version else {}
        if tuning.version != subject.version:
            activate(repository, subject.name, tuning.version, live, check, by="tune")
        try:
            if tuning.version != subject.version:
                texts = new_texts(repository, subject, tuning)
            if texts:
                carry_out(
                    repository, live, lambda: _journal(repository, subject, tuning.version, texts, live), verify=check
                )
        except BaseException:
            if tuning.version != subject.version:
                activate(repository, subject.name, subject.version, live, check, by="tune, taken back")
            raise
        url = live.url if live.runs else ""
    return Written(tuple(texts), url, all(kept for _, _, kept in texts.values()))


def _journal(
    repository: Repository, subject: Subject, version: int, texts: Mapping[str, tuple[str, str, bool]], taker: Taker
) -> Journal:
    """A switch in which no version comes: configs alone are replaced, members first."""
    holds = ledger.read(repository.root).held
    parts = []
    for name in subject.configs:
        if name not in texts and name != subject.name:
            continue
        live = plan.look(repository, name, taker)
        text = live.text or ""
        after = texts[name][1] if name in texts else text
        parts.append(Part(name, text, text, after, added=False, loaded=live.loaded, held=holds.get(name)))
    # Without `by` and a version before, nothing is noted: the same version serves.
    return Journal(subject.name, version, journal.PLAIN, tuple(parts), None, pid=os.getpid())
