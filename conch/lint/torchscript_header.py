"""The arguments of a TorchScript file's forward, read without torch and without running anything.

The file is a zip: data.pkl names the class of the module, and code/ holds that class as Python source, which is parsed
and never executed.

Source: https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md
"""

from __future__ import annotations

import ast
import pickletools
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

_LARGEST_PART_BYTES = 16 << 20
_PREFIX = "__torch__"


@dataclass(frozen=True)
class ForwardHeader:
    """``arguments`` as (name, type), self left out; ``results`` is how many tensors come back, None when not said."""

    arguments: tuple[tuple[str, str], ...]
    results: int | None

    @property
    def takes_dict(self) -> bool:
        """Whether all inputs go into one dict, by name."""
        return len(self.arguments) == 1 and self.arguments[0][1].startswith("Dict[")

    def describe(self) -> str:
        """What a person reads: ``forward(x: Tensor)``."""
        return f"forward({', '.join(f'{name}: {kind}' for name, kind in self.arguments)})"


def read_forward(path: Path) -> ForwardHeader | None:
    """The head of a TorchScript module's forward; None when the file is none, or of a kind that does not say."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with zipfile.ZipFile(path) as archive:
            return _from_archive(archive)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError, zipfile.BadZipFile, NotImplementedError):
        # Pickles and sources that are not as torch writes them raise many kinds of errors; all mean "cannot be known".
        return None
    except (KeyError, IndexError, EOFError, RuntimeError):
        return None


def _from_archive(archive: zipfile.ZipFile) -> ForwardHeader | None:
    root = archive.namelist()[0].split("/")[0]
    module, _, name = _class_of(_part(archive, f"{root}/data.pkl")).rpartition(" ")
    if not module.startswith(_PREFIX):
        return None
    source = _part(archive, f"{root}/code/{module.replace('.', '/')}.py").decode("utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "forward":
                    return _head(method)
    return None


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_PART_BYTES:
        raise ValueError(name)
    return archive.read(name)


def _class_of(pickled: bytes) -> str:
    """The first class that a pickle names, "module name": the module's own. The pickle is not loaded."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            return str(argument)
    return ""


def _head(method: ast.FunctionDef) -> ForwardHeader:
    arguments = method.args.args[1:]
    found = tuple((a.arg, ast.unparse(a.annotation) if a.annotation else "Tensor") for a in arguments)
    return ForwardHeader(found, _count(method.returns))


def _count(returns: ast.expr | None) -> int | None:
    if isinstance(returns, ast.Subscript):
        kind = ast.unparse(returns.value)
        if kind != "Tuple":
            return 1 if kind == "List" and ast.unparse(returns.slice) == "str" else None
        return len(returns.slice.elts) if isinstance(returns.slice, ast.Tuple) else 1
    return 1 if returns is not None and ast.unparse(returns) == "Tensor" else None
