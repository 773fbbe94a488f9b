"""`conch repo`: the commands on a repository. Each lives with what it does, and is imported when it is called."""

from __future__ import annotations

import click

from conch.cli import LazyCommand, LazyGroup

_VIEW, _SIGNING, _ROLLOUT = "server.repo_view.cli", "server.repo_view.signing_cli", "server.rollout.cli"

COMMANDS = {
    "list": LazyCommand(_VIEW, "list_models", "Show the models, their versions, and which serve."),
    "show": LazyCommand(_VIEW, "show", "Show all that is known of one model."),
    "diff": LazyCommand(_VIEW, "diff", "Compare two versions of a model."),
    "lint": LazyCommand("conch.lint.cli", "lint", "Check a repository before Triton does."),
    "publish": LazyCommand(_ROLLOUT, "publish", "Try a new version, and let it serve when it is right."),
    "rollback": LazyCommand(_ROLLOUT, "rollback", "Go back to a version that served before."),
    "promote": LazyCommand(_ROLLOUT, "promote", "Let a version serve that is there already."),
    "watch": LazyCommand(_ROLLOUT, "watch", "Publish what arrives in a folder."),
    "recover": LazyCommand(_ROLLOUT, "recover", "Finish or take back what a killed command left."),
    "alias": LazyCommand(_VIEW, "alias", "Name versions, and give them a share of the traffic."),
    "prune": LazyCommand(_VIEW, "prune", "Remove old versions, never what is needed."),
    "keygen": LazyCommand(_SIGNING, "keygen", "Make a pair of keys to sign versions with."),
    "sign": LazyCommand(_SIGNING, "sign", "Sign versions with a key."),
    "verify": LazyCommand(_SIGNING, "verify", "Check versions' files and signatures."),
}


class RepoGroup(LazyGroup):
    """The lazy group over this module's table."""

    table = COMMANDS


@click.group(cls=RepoGroup)
def repo() -> None:
    """Look into a repository, and change safely what serves.

    \b
    Examples:
      conch repo list
      conch repo lint
      conch repo publish stage/spam --as spam
      conch repo rollback spam
    """
