"""Is this machine fit to serve, and if not, what to do. Each check is a pure function of what was found."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ServerError
from server import binary, http_api, ports
from server.options import ServerOptions

OK, WARNING, FAILURE = "ok", "warning", "failure"

MIN_GLIBC = (2, 35)
MIN_SHM_BYTES = 64 << 20
GOOD_SHM_BYTES = 256 << 20
PYTRITON = "0.7.0"
PACKAGES = (
    "nvidia-pytriton",
    "tritonclient",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "torch",
    "tokenizers",
    "pillow",
)


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is (ok, warning, failure), what was found, and what to do."""

    name: str
    level: str
    found: str
    fix: str | None = None


def check_glibc(version: str) -> Check:
    """Triton's binary needs glibc 2.35; ``version`` is "" on a system without glibc."""
    parts = tuple(int(p) for p in version.split(".")[:2]) if version else (0, 0)
    if parts >= MIN_GLIBC:
        return Check("glibc", OK, version)
    fix = "use Debian 12, Ubuntu 22.04, RHEL 10 or newer, or serve with --mode docker"
    return Check("glibc", FAILURE, version or "none", fix)


def check_python(version: str, stubs: Sequence[str]) -> Check:
    """Python models run under a stub made for this very version of Python."""
    if version in stubs:
        return Check("python", OK, version)
    return Check("python", FAILURE, version, f"make the virtual environment with one of {', '.join(stubs) or 'none'}")


def check_python_on_path(executable: Path) -> Check:
    """The stub finds the virtual environment by its python3."""
    if executable.exists():
        return Check("python3", OK, str(executable))
    return Check("python3", FAILURE, f"{executable} is missing", "make the virtual environment anew")


def check_libpython(path: Path | None, version: str) -> Check:
    """The stub links to libpython."""
    if path is not None:
        return Check("libpython", OK, str(path))
    return Check("libpython", FAILURE, "none", f"apt install libpython{version}, or a Python with --enable-shared")


def check_numpy(version: str | None) -> Check:
    """With numpy 2 every output of a Python model arrives empty, and no error tells."""
    if version is not None and int(version.split(".")[0]) < 2:
        return Check("numpy", OK, version)
    return Check("numpy", FAILURE, version or "not installed", "pip install 'numpy>=1.26,<2'")


def check_server(installed: str | None, problem: str | None) -> Check:
    """The embedded server: installed, the measured release, and its shared libraries found."""
    if installed is None:
        return Check("embedded server", FAILURE, "nvidia-pytriton is not installed", binary.INSTALL)
    if problem is not None:
        return Check("embedded server", FAILURE, problem, f"{binary.INSTALL}, or serve with --mode docker")
    if installed != PYTRITON:
        fix = f"pip install nvidia-pytriton=={PYTRITON}: the release that was tried"
        return Check("embedded server", WARNING, f"nvidia-pytriton {installed}", fix)
    return Check("embedded server", OK, f"nvidia-pytriton {installed}, tritonserver 2.51.0 (24.10)")


def check_port(name: str, port: int, *, free: bool, triton: bool) -> Check:
    """A port that `conch serve` takes by default."""
    if free:
        return Check(f"port {port}", OK, f"free for {name}")
    if triton:
        return Check(f"port {port}", OK, f"a Triton server answers ({name})")
    fix = f"choose another with --{name.lower()}-port, or see what has it: ss -ltnp 'sport = :{port}'"
    return Check(f"port {port}", WARNING, f"taken; {name} goes there by default", fix)


def check_shared_memory(free_bytes: int) -> Check:
    """Tensors go to and from Python models through /dev/shm; containers get 64 MB of it by default."""
    found = f"{free_bytes >> 20} MiB free"
    fix = "give the container more: docker run --shm-size=1g"
    if free_bytes >= GOOD_SHM_BYTES:
        return Check("/dev/shm", OK, found)
    return Check("/dev/shm", WARNING if free_bytes >= MIN_SHM_BYTES else FAILURE, found, fix)


def check_gpu(gpus: Sequence[str], providers: Sequence[str]) -> Check:
    """A GPU serves ONNX models only with a CUDA build of ONNX Runtime."""
    if not gpus:
        return Check("gpu", OK, "none: models run on the CPU")
    if "CUDAExecutionProvider" in providers:
        return Check("gpu", OK, ", ".join(gpus))
    fix = "pip uninstall onnxruntime && pip install -e '.[gpu]'"
    return Check("gpu", WARNING, f"{', '.join(gpus)}, but ONNX Runtime has no CUDA provider", fix)


def check_docker(client: str | None, engine: str | None, problem: str | None) -> Check:
    """Docker is needed for --mode docker and docker compose alone."""
    if client is None:
        return Check("docker", WARNING, "not installed", "only --mode docker and compose need it")
    if engine is None:
        fix = "start its engine if you want --mode docker or compose: systemctl start docker"
        return Check("docker", WARNING, f"client {client}, no engine: {problem}", fix)
    return Check("docker", OK, f"client {client}, engine {engine}")


def check_packages(versions: Mapping[str, str | None]) -> list[Check]:
    """What is installed; both builds of ONNX Runtime at once overwrite each other's files."""
    checks = [Check(name, OK, version) for name, version in versions.items() if version]
    if versions.get("onnxruntime") and versions.get("onnxruntime-gpu"):
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install one"
        checks.append(Check("onnxruntime", FAILURE, "onnxruntime and onnxruntime-gpu are both installed", fix))
    if not versions.get("onnxruntime") and not versions.get("onnxruntime-gpu"):
        checks.append(Check("onnxruntime", WARNING, "not installed: no ONNX model can be served", binary.INSTALL))
    return checks


def examine() -> list[Check]:
    """Look at this machine."""
    versions = {name: _version(name) for name in PACKAGES}
    problem, stubs = _examine_server()
    python = binary.python_version()
    options = ServerOptions()
    is_triton = http_api.is_live(f"http://127.0.0.1:{options.http_port}", {}, timeout_s=1.0)
    asked = (("HTTP", options.http_port), ("gRPC", options.grpc_port), ("metrics", options.metrics_port))
    return [
        check_glibc(platform.libc_ver()[1] if platform.libc_ver()[0] == "glibc" else ""),
        check_python(python, stubs),
        check_python_on_path(Path(sys.prefix, "bin", "python3")),
        check_libpython(binary.find_libpython(), python),
        check_numpy(_version("numpy")),
        check_server(versions.pop("nvidia-pytriton"), problem),
        *(check_port(name, port, free=ports.is_free("127.0.0.1", port), triton=is_triton) for name, port in asked),
        check_shared_memory(_free_shared_memory()),
        check_gpu(_gpus(), _providers()),
        _examine_docker(),
        *check_packages(versions),
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _examine_server() -> tuple[str | None, list[str]]:
    """Whether the binary starts (None), or why not; and the Python versions that have a stub."""
    try:
        installation = binary.find()
    except ServerError as error:
        return error.what, []
    environment = binary.environment(installation, os.environ)
    code, _, said = _run([str(installation.binary), "--help"], environment)
    # tritonserver ends --help with a code of its own; what counts is that the loader found every library.
    return (said or f"exit code {code}") if code in (126, 127, None) else None, installation.stub_versions()


def _free_shared_memory() -> int:
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return 0


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    code, said, _ = _run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return said.splitlines() if code == 0 else []


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _examine_docker() -> Check:
    docker = shutil.which("docker")
    if docker is None:
        return check_docker(None, None, None)
    _, client, _ = _run([docker, "version", "--format", "{{.Client.Version}}"])
    code, engine, said = _run([docker, "version", "--format", "{{.Server.Version}}"])
    return check_docker(client.strip().splitlines()[0] if client else "?", engine if code == 0 else None, said)


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[int | None, str, str]:
    """Exit code (None when it did not run), output, and the last line of what it complained."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, "", str(error)
    lines = done.stderr.strip().splitlines()
    return done.returncode, done.stdout.strip(), lines[-1] if lines else ""
