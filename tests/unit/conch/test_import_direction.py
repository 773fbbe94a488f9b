"""Imports between the project's folders go one way: conch <- clients <- server <- export <- perf and gateway."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# What each folder may import of ours, beside itself.
ALLOWED = {
    "conch": set(),
    "clients": {"conch"},
    "server": {"conch", "clients"},
    "export": {"conch", "clients", "server"},
    "perf": {"conch", "clients", "server", "export"},
    "gateway": {"conch", "clients", "server", "export"},
    "server/embedded_backends": set(),
    "python_backends": set(),
}
OURS = {"conch", "clients", "server", "export", "perf", "gateway", "python_backends", "model_repository", "tests"}


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def files() -> list[tuple[str, Path]]:
    found = []
    for folder in ALLOWED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT).as_posix()
            # What a benchmark installs and exports is not ours, and not in git.
            if inside.startswith("perf/results/"):
                continue
            if folder == "server" and inside.startswith("server/embedded_backends/"):
                continue
            found.append((folder, path))
    return found


@pytest.mark.parametrize(("folder", "path"), files(), ids=lambda x: str(x).removeprefix(f"{ROOT}/"))
def test_a_file_imports_only_what_lies_below_it(folder: str, path: Path) -> None:
    own = {folder.split("/")[0]} if "/" not in folder and folder != "python_backends" else set()
    wrong = (imported(path) & OURS) - ALLOWED[folder] - own
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_check_sees_every_folder() -> None:
    assert {folder for folder, _ in files()} == set(ALLOWED)


def test_the_check_finds_an_import_inside_a_function(tmp_path: Path) -> None:
    source = tmp_path / "late.py"
    source.write_text("def f():\n    from export import steps\n")
    assert imported(source) == {"export"}
