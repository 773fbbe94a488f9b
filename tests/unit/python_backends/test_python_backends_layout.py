"""What export relies on when it copies a folder: it is complete, alone, and hides no installed package."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "python_backends"
FOLDERS = sorted(path.parent.name for path in SOURCES.glob("*/model.py"))
LOGIC = sorted(path.relative_to(SOURCES) for path in SOURCES.glob("*/*.py") if path.name != "model.py")
LINKS = [path for path in LOGIC if (SOURCES / path).is_symlink()]
OWN = [path for path in LOGIC if path not in LINKS]
PARTS = [path for path in OWN if path.name.endswith("_part.py") and path.parts[0] != "shared"]
# Answers in pieces, from a thread of its own: no part of a pipeline.
GENERATES = "generate"
# The package that brings a module of another name.
PACKAGES = {"PIL": "pillow", "openvino_genai": "openvino-genai", "yaml": "pyyaml"}
# Used where they are, by a function of a linked file that nothing here calls.
OPTIONAL = {"google", "tritonclient"}


def imported(folder: Path) -> set[str]:
    """The top-level names that a folder's code imports."""
    names = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_there_is_one_folder_for_each_model() -> None:
    tasks = ["classify", "generate", "image_preprocess", "pool_embeddings", "text_tokenizer", "token_classify"]
    assert [*tasks, "whole_pipeline"] == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_requirements_name_what_the_code_imports(folder: str) -> None:
    own = {path.stem for path in (SOURCES / folder).glob("*.py")}
    needed = imported(SOURCES / folder) - own - set(sys.stdlib_module_names) - {"triton_python_backend_utils"}
    lines = (SOURCES / folder / "requirements.txt").read_text(encoding="utf-8").split()
    named = {re.split(r"[<>=!~]", line)[0] for line in lines}
    assert {PACKAGES.get(name, name) for name in needed - OPTIONAL} == named


def test_the_image_installs_what_the_folders_require() -> None:
    def lines(path: Path) -> set[str]:
        text = path.read_text(encoding="utf-8")
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    required = set().union(*(lines(SOURCES / folder / "requirements.txt") for folder in FOLDERS))
    assert lines(ROOT / "server" / "image" / "requirements.txt") == required


@pytest.mark.parametrize("path", OWN, ids=str)
def test_no_installed_package_has_the_name_of_a_logic_file(path: Path) -> None:
    assert importlib.util.find_spec(path.stem) is None, "inside Triton the installed package would win"
    assert not (ROOT / path.stem).exists()


def test_logic_files_differ_in_name() -> None:
    names = [path.name for path in OWN]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", LINKS, ids=str)
def test_a_shared_file_is_a_link_of_its_own_name(path: Path) -> None:
    target = (SOURCES / path).readlink()
    assert not target.is_absolute(), "a clone elsewhere would lose it"
    assert target.name == path.name
    assert (SOURCES / path).is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_has_a_row(folder: str) -> None:
    assert f"| `{folder}` |" in (SOURCES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*PARTS, Path(GENERATES, "generate_settings.py")], ids=str)
def test_every_parameter_is_in_the_readme(path: Path) -> None:
    tree = ast.parse((SOURCES / path).read_text(encoding="utf-8"))
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "PARAMETERS"]
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{path.parent}` |"))
    assert [name for value in values for name in ast.literal_eval(value) if f"`{name}`" not in row] == []


def test_every_folder_has_the_part_that_its_name_promises() -> None:
    assert {path.name for path in PARTS} >= {f"{folder}_part.py" for folder in FOLDERS if folder != GENERATES}
