"""What a Python model imports, read from its sources without running them.

From model.py on, along the files of its version folder: what nothing imports is not looked at, since nothing loads it.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from conch.lint.model import VersionFolder, read_text

# The modules that Triton itself puts in front of a Python model, and numpy, without which its stub does not start.
_FROM_TRITON = {"triton_python_backend_utils", "c_python_backend_utils", "numpy"}

# Packages whose modules have other names. Source: their pages on the package index.
_MODULES_OF: dict[str, tuple[str, ...]] = {
    "beautifulsoup4": ("bs4",),
    "cupy-cuda12x": ("cupy",),
    "faiss-cpu": ("faiss",),
    "faiss-gpu": ("faiss",),
    "grpcio": ("grpc",),
    "msgpack-python": ("msgpack",),
    "nvidia-dali-cuda120": ("nvidia",),
    "onnxruntime-gpu": ("onnxruntime",),
    "opencv-contrib-python": ("cv2",),
    "opencv-contrib-python-headless": ("cv2",),
    "opencv-python": ("cv2",),
    "opencv-python-headless": ("cv2",),
    "openvino-genai": ("openvino_genai", "openvino", "openvino_tokenizers"),
    "pillow": ("PIL",),
    "pillow-simd": ("PIL",),
    "protobuf": ("google",),
    "py-cpuinfo": ("cpuinfo",),
    "pyjwt": ("jwt",),
    "pymupdf": ("fitz", "pymupdf"),
    "pysoundfile": ("soundfile",),
    "python-dateutil": ("dateutil",),
    "pytorch-lightning": ("pytorch_lightning", "lightning_fabric"),
    "pyturbojpeg": ("turbojpeg",),
    "pyyaml": ("yaml",),
    "pyzmq": ("zmq",),
    "scikit-image": ("skimage",),
    "scikit-learn": ("sklearn",),
    "sentence-transformers": ("sentence_transformers",),
    "tensorflow-cpu": ("tensorflow",),
    "torch": ("torch", "functorch"),
    "tritonclient": ("tritonclient",),
}

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
# Far more than a model's code has; what lies beyond is not followed.
_MOST_FILES = 500
# What is remembered between files is bounded, in number and in size.
_REMEMBERED_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Import:
    """An import of ``module`` (its top name) that nothing provides. In a function, it fails at a request only."""

    module: str
    file: str
    line: int
    in_function: bool


@dataclass(frozen=True)
class Unparsed:
    """A source file that Python cannot read."""

    file: str
    reason: str


def modules_of(packages: Iterable[str]) -> set[str]:
    """The top modules that pip requirements bring: a known name, or the package's own with underscores."""
    found: set[str] = set()
    for requirement in packages:
        match = _REQUIREMENT.match(requirement)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            plain = name.replace("-", "_")
            found |= {*_MODULES_OF.get(name, ()), plain, match[1], plain.removeprefix("python_"), name.split("-")[0]}
    return found


def unresolved(version: VersionFolder, packages: Iterable[str], start: str) -> Iterator[Import | Unparsed]:
    """The imports, from the file ``start`` on, that neither the folder, the packages nor Python itself provide.

    Imports that may fail (under try with an except, or for type checkers only) are left out.
    """
    known = _FROM_TRITON | modules_of(packages) | sys.stdlib_module_names
    own = set(version.files)
    waiting, seen = [start], {start}
    while waiting and len(seen) < _MOST_FILES:
        file = waiting.pop(0)
        text, problem = read_text(version.path / file)
        if text is None:
            yield Unparsed(file, problem)
            continue
        imports = _read_imports(text, file)
        if isinstance(imports, str):
            yield Unparsed(file, imports)
            continue
        for found in imports:
            siblings = [f for f in _files_of(found.name, found.folder) if f in own]
            new = [f for f in siblings if f not in seen]
            seen.update(new)
            waiting += new
            top = found.name.split(".")[0]
            here = found.follow_only or siblings or _is_here(top, found.folder, own)
            if not here and top not in known and not found.may_fail:
                yield Import(top, file, found.line, found.in_function)


def _read_imports(text: str, file: str) -> tuple[_Found, ...] | str:
    """The imports of a source, or why it is none."""
    read = _remembered if len(text) <= _REMEMBERED_CHARACTERS else _remembered.__wrapped__
    return read(text, file.rpartition("/")[0])


@lru_cache(maxsize=64)
def _remembered(text: str, folder: str) -> tuple[_Found, ...] | str:
    """As `_read_imports`, which meets the same sources many times: export copies them into each version."""
    try:
        with warnings.catch_warnings():  # of odd escapes in other people's strings
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _reason(error)
    return tuple(_imports(tree.body, folder))


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class _Found:
    """An import as it stands in a file: a dotted name, and the folder that it is looked up in ("" is the top).

    ``follow_only``: not asked for by itself: in `from a import b`, b may be a module of the package a, or a name in it.
    """

    name: str
    line: int
    folder: str
    follow_only: bool
    in_function: bool
    may_fail: bool


def _imports(body: Iterable[ast.AST], here: str) -> Iterator[_Found]:
    """The imports in the statements of a file in this folder, line by line; nesting is walked without recursion."""
    folders = here.split("/") if here else []
    stack = [(node, False, False) for node in reversed(list(body))]
    while stack:
        node, inside, soft = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Found(alias.name, node.lineno, "", False, inside, soft)
        elif isinstance(node, ast.ImportFrom):
            above = max(0, len(folders) - node.level + 1)
            folder = "/".join(folders[:above]) if node.level else ""
            module = node.module or ""
            yield _Found(module, node.lineno, folder, node.level > 0, inside, soft)
            for alias in node.names:
                yield _Found(f"{module}.{alias.name}".strip("."), node.lineno, folder, True, inside, soft)
        else:
            inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            stack += [(child, inside, soft or risky) for child, risky in _children(node)]


def _children(node: ast.AST) -> list[tuple[ast.AST, bool]]:
    """The statements below a statement, last first, each with whether an import in it may fail."""
    if isinstance(node, ast.expr):
        return []
    risky: list[ast.AST] = []
    if isinstance(node, ast.Try) and node.handlers:
        risky = [*node.body, *node.handlers]
    elif isinstance(node, ast.If) and _for_checkers(node.test):
        risky = list(node.body)
    return [(child, child in risky) for child in reversed(list(ast.iter_child_nodes(node)))]


def _for_checkers(test: ast.expr) -> bool:
    return any("TYPE_CHECKING" in (getattr(n, "id", ""), getattr(n, "attr", "")) for n in ast.walk(test))


def _files_of(name: str, folder: str) -> Iterator[str]:
    """The files that importing a dotted name reads, relative to the version folder."""
    parts = [p for p in [*folder.split("/"), *name.split(".")] if p]
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        yield f"{path}.py"
        yield f"{path}/__init__.py"


def _is_here(top: str, folder: str, own: set[str]) -> bool:
    """Whether the version folder has the module in another shape: an extension, or a package without __init__.py."""
    prefix = f"{folder}/{top}" if folder else top
    return any(f.startswith((f"{prefix}/", f"{prefix}.")) and not f.endswith((".txt", ".json")) for f in own)
