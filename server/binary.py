"""Find the tritonserver that nvidia-pytriton carries, and put together what it needs to run this environment's Python.

The wheel has the server, the Python backend and a stub for each Python version, but no onnxruntime or pytorch backend;
the folders of ``embedded_backends`` stand in for those. Measured with nvidia-pytriton 0.7.0 (tritonserver 2.51.0).
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ServerError

STAND_INS = Path(__file__).parent / "embedded_backends"
STUB = "triton_python_backend_stub"
INSTALL = "pip install -e '.[server]'"


@dataclass(frozen=True)
class Installation:
    """Where the parts of the embedded server lie. ``libraries`` holds the shared libraries that the wheel brings."""

    root: Path
    libraries: Path

    @property
    def binary(self) -> Path:
        """The server itself."""
        return self.root / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """The folder of libtriton_python.so."""
        return self.root / "backends" / "python"

    @property
    def caches(self) -> Path:
        """The directory of response cache implementations."""
        return self.root / "caches"

    def stub(self, version: str) -> Path:
        """The program that runs Python models under this version of Python, e.g. "3.11"."""
        return self.root / "python_backend_stubs" / version / STUB

    def stub_versions(self) -> list[str]:
        """The versions of Python that have a stub, lowest first."""
        found = [p.parent.name for p in self.root.glob(f"python_backend_stubs/*/{STUB}")]
        return sorted(found, key=lambda v: tuple(int(part) for part in v.split(".")))


def find() -> Installation:
    """The installed server. Raises: ServerError."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("the embedded Triton server is not installed", got="no package nvidia-pytriton", fix=INSTALL)
    package = Path(next(iter(spec.submodule_search_locations)))
    installation = Installation(package / "tritonserver", package.parent / "nvidia_pytriton.libs")
    for path in (installation.binary, installation.python_backend / "libtriton_python.so", installation.libraries):
        if not path.exists():
            raise ServerError(
                "the installed nvidia-pytriton lacks a part of the server",
                where=path,
                expected="nvidia-pytriton==0.7.0 for Linux x86-64, which carries it",
                fix=f"{INSTALL}, or serve with --mode docker",
            )
    return installation


def python_version() -> str:
    """The running Python, as the stubs name it: "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_libpython() -> Path | None:
    """The shared library of the running Python, which the stub links to; None when there is none."""
    name = f"libpython{python_version()}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [sysconfig.get_config_var("LIBDIR") or "/usr/lib", f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
    folders += [f"/usr/lib/{multiarch}", "/usr/lib64", "/usr/local/lib"]
    for folder in folders:
        if Path(folder, name).is_file():
            return Path(folder, name)
    # Elsewhere, but known to the loader: then its folder need not be named.
    known = ctypes.util.find_library(f"python{python_version()}")
    return Path(known) if known == name else None


def check_environment() -> None:
    """Raise ServerError where the server would start and then fail, or answer wrongly."""
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise ServerError(
            "numpy 2 and the embedded server's Python backend do not fit: every output would arrive empty",
            got=f"numpy {numpy}",
            expected="numpy>=1.26,<2",
            fix="pip install 'numpy>=1.26,<2'",
        )
    if find_libpython() is None:
        raise ServerError(
            f"the shared library of Python {python_version()} is missing, and Python models need it",
            expected=f"libpython{python_version()}.so.1.0",
            fix=f"apt install libpython{python_version()}, or use a Python built with --enable-shared",
        )


def assemble(installation: Installation, folder: Path) -> Path:
    """Fill a folder with the Python backend, this Python's stub and the stand-ins; returns it. Raises: ServerError."""
    stub = installation.stub(python_version())
    if not stub.is_file():
        raise ServerError(
            f"the embedded server cannot run Python {python_version()} models",
            got=f"Python {python_version()}",
            expected=", ".join(installation.stub_versions()),
            fix="make the virtual environment with one of these versions",
        )
    if os.statvfs(folder.parent).f_flag & os.ST_NOEXEC:
        raise ServerError(
            "programs cannot be run from the folder for temporary files",
            where=folder.parent,
            got="a file system mounted noexec",
            fix="name another in the variable TMPDIR",
        )
    shutil.copytree(installation.python_backend, folder / "python", ignore=shutil.ignore_patterns("__pycache__"))
    copied = Path(shutil.copy(stub, folder / "python" / STUB))
    copied.chmod(0o755)
    for stand_in in sorted(STAND_INS.iterdir()) if STAND_INS.is_dir() else []:
        if (stand_in / "model.py").is_file():
            shutil.copytree(stand_in, folder / stand_in.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def environment(installation: Installation, base: Mapping[str, str]) -> dict[str, str]:
    """The variables that the server runs with.

    Without the wheel's libraries the stub dies on a missing libcudart, without libpython's folder on that. The stub
    runs Python in isolated mode: it finds the virtual environment only by the python3 that it meets first on PATH.
    """
    libpython = find_libpython()
    libraries = [str(installation.libraries)]
    if libpython is not None and libpython.is_absolute():
        libraries.append(str(libpython.parent))
    return {
        **base,
        "LD_LIBRARY_PATH": _join(*libraries, base.get("LD_LIBRARY_PATH", "")),
        "PATH": _join(str(Path(sys.prefix, "bin")), base.get("PATH", os.defpath)),
    }


def _join(*parts: str) -> str:
    return os.pathsep.join(p for p in parts if p)


def has_gpu() -> bool:
    """Whether the kernel shows an NVIDIA GPU; no driver library is loaded for it."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
