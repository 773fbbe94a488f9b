import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from conch.cli import COMMANDS, root

CONCH = Path(sys.executable).with_name("conch")


def conch(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CONCH, *words], capture_output=True, text=True, timeout=60, check=False, **kwargs)


def test_help_names_every_command_and_loads_none() -> None:
    code = "import sys, conch.cli as c; c.root(['--help'], standalone_mode=False); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []
    heavy = {"torch", "transformers", "numpy", "rich", "tritonclient", "export", "server", "clients"}
    assert heavy & set(done.stdout.splitlines()[-1].split()) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    lazy = COMMANDS[name]
    command = getattr(importlib.import_module(lazy.module), lazy.attribute)
    assert command.name == name
    done = conch(name, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    done = conch("serv")
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "serve" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_come_for_each_shell(shell: str) -> None:
    done = conch("completion", shell)
    assert done.returncode == 0
    assert "_CONCH_COMPLETE" in done.stdout


def test_the_shell_is_told_the_commands() -> None:
    import os

    words = {"_CONCH_COMPLETE": "bash_complete", "COMP_WORDS": "conch ex", "COMP_CWORD": "1"}
    done = conch(env=os.environ | words)
    assert done.stdout.strip() == "plain,export"


FAILING = """
import sys, click
import conch.cli as c
from conch.errors import ConchError
@c.root.command("fail")
def fail():
    {body}
c.LazyGroup.get_command = lambda self, ctx, name: click.Group.get_command(self, ctx, name)
sys.argv = ["conch", *{words!r}]
c.main()
"""


def run_failing(body: str, *words: str) -> subprocess.CompletedProcess[str]:
    code = FAILING.format(body=body, words=[*words, "fail"])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_an_error_is_short_and_the_exit_is_not_zero() -> None:
    done = run_failing('raise ConchError("it broke", got=1, expected=2, fix="mend it")')
    assert done.returncode == 1
    assert done.stderr == "error: it broke\n  got:      1\n  expected: 2\n  fix:      mend it\n"


def test_debug_shows_the_traceback() -> None:
    done = run_failing('raise ConchError("it broke")', "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("body", "code"), [("raise KeyboardInterrupt", 130), ("raise ZeroDivisionError('x')", 70)])
def test_nothing_else_prints_a_traceback(body: str, code: int) -> None:
    done = run_failing(body)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_the_commands_stand_in_the_order_a_user_meets_them() -> None:
    assert root.list_commands(None) == list(COMMANDS)  # type: ignore[arg-type]
