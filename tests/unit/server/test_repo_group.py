import importlib
import subprocess
import sys

import pytest

from server.repo_cli import COMMANDS


def test_help_names_every_command_and_loads_none() -> None:
    code = "import sys, server.repo_cli as c; c.repo(['--help'], standalone_mode=False); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"numpy", "rich", "tritonclient", "onnx", "cryptography", "server.repo_view.contents", "conch.lint"}
    assert heavy & loaded == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    lazy = COMMANDS[name]
    command = getattr(importlib.import_module(lazy.module), lazy.attribute)
    assert command.name == name
    assert "Example" in command.help


@pytest.mark.parametrize("name", COMMANDS)
def test_naming_a_command_loads_nothing_heavy(name: str) -> None:
    lazy = COMMANDS[name]
    code = f"import sys, {lazy.module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {"onnx", "onnxruntime", "torch", "sklearn", "cryptography"} & set(done.stdout.split()) == set()
