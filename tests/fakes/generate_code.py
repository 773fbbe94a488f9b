"""The modules of python_backends/generate that do not need Triton, imported as there: by bare names.

They leave ``sys.path`` and ``sys.modules`` as they were: the folder holds a model.py, as others do.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "python_backends" / "generate"
ENGINE = "generate_engine"  # which takes a second to import
NEEDS_TRITON = "generate_metrics"


@functools.cache
def _modules(engine: bool) -> dict[str, ModuleType]:
    without = (NEEDS_TRITON,) if engine else (NEEDS_TRITON, ENGINE)
    names = [path.stem for path in FOLDER.glob("generate_*.py") if path.stem not in without]
    sys.path.append(str(FOLDER))
    try:
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    """One of them; always the same object."""
    return _modules(engine=False)[name]


def engine_module(name: str) -> ModuleType:
    """One of them, as the engine's module knows it."""
    return _modules(engine=True)[name]
