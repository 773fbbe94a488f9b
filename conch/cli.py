"""The `conch` command: a root group that loads each folder's commands only when they are used.

``conch --help`` must answer within 0.3 s, so this module imports click alone, and every command is named here by the
module that holds it. A failure that the user can mend is a ConchError: printed short, with a non-zero exit;
``--debug`` shows the traceback.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import click
from click.shell_completion import CompletionItem

from conch import __version__
from conch.errors import ConchError, nearest


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives, and the one line that the root help shows for it."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "export": LazyCommand("export.cli", "export", "Turn a model into a new version in the repository."),
    "serve": LazyCommand("server.cli", "serve", "Serve a repository with Triton, in the foreground."),
    "status": LazyCommand("server.cli", "status", "Show what a running server serves, and how it is doing."),
    "doctor": LazyCommand("server.cli", "doctor", "Check this machine, and say what to do."),
    "repo": LazyCommand("server.repo_cli", "repo", "Look into a repository, and change what serves."),
    "perf": LazyCommand("perf.perf_cli", "perf", "Measure what is served, explain it, improve it."),
    "gateway": LazyCommand("gateway.cli", "gateway", "Serve models to REST and OpenAI clients."),
    "infer": LazyCommand("clients.cli", "infer", "Ask a model, from files or the command line."),
    "demo": LazyCommand("export.demo", "demo", "Export the samples, serve them, ask them, stop."),
    "completion": LazyCommand("conch.completion", "completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when help is shown; ``table`` names them."""

    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a user meets them."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds a command."""
        lazy = self.table.get(cmd_name)
        if lazy is None:
            close = nearest(cmd_name, self.table)
            if close and not ctx.resilient_parsing:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean {close}?")
            return None
        command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table above: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, and the group's own options; nothing is imported."""
        names = [CompletionItem(n, help=lazy.help) for n, lazy in self.table.items() if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CONCH"},
)
@click.version_option(__version__, prog_name="conch")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def root(debug: bool) -> None:
    """A model repository for the Triton Inference Server, and the tools around it.

    \b
    Examples:
      conch export sklearn model.joblib --sample data.csv --trust
      conch serve
      conch infer model --csv data.csv
    """


def main() -> None:
    """Run the command line; the console script's entry point."""
    debug = "--debug" in sys.argv[1:]
    try:
        code = root.main(prog_name="conch", standalone_mode=False)
    except ConchError as error:
        if debug:
            raise
        click.secho(f"error: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        click.echo(f"error: {type(error).__name__}: {error}\n  fix:      run again with `conch --debug`", err=True)
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)
