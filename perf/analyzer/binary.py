"""Find a perf_analyzer that runs here, or get one from pip: no root, no Docker, no CUDA.

Looked for in this order: what $CONCH_PERF_ANALYZER names (a path, or `docker` for NVIDIA's SDK container), the PATH,
and the folder that `conch perf install` fills. The wheel of tritonclient 2.51.0 is the newest that runs on glibc
2.36; the package perf-analyzer is an empty placeholder. The binary needs libb64 and libcudart, which nvidia-pytriton
brings under hashed names: links of the plain names, on the library path of that process alone, are enough.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.releases import DEFAULT_TARGET, release

VARIABLE = "CONCH_PERF_ANALYZER"
NAME = "perf_analyzer"
WHEEL_VERSION = "2.51.0"
CONTAINER = "docker"
IMAGE = f"nvcr.io/nvidia/tritonserver:{DEFAULT_TARGET}-py3-sdk"
# What the binary links to, and how the files begin that nvidia-pytriton carries.
LIBRARIES = {"libb64.so.0d": "libb64-", "libcudart.so.12": "libcudart-"}
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Analyzer:
    """A perf_analyzer that was started once. ``libraries``, where not None, belongs on its library path.

    ``image`` names the container that it runs in; then ``path`` is a path in there.
    """

    path: str
    version: str
    libraries: Path | None = None
    image: str = ""

    def command(self, scratch: Path) -> list[str]:
        """How to call it, with files in the folder ``scratch``; arguments follow."""
        if not self.image:
            return [self.path]
        docker = shutil.which("docker") or "docker"
        user = f"{os.getuid()}:{os.getgid()}"
        # --init passes signals on; the host's network and IPC are where the server and shared memory are.
        options = ["--rm", "--init", "--network=host", "--ipc=host", f"--user={user}"]
        return [docker, "run", *options, f"--volume={scratch}:{scratch}", self.image, self.path]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The variables that it runs with."""
        if self.libraries is None:
            return dict(base)
        path = os.pathsep.join(p for p in (str(self.libraries), base.get("LD_LIBRARY_PATH", "")) if p)
        return {**base, "LD_LIBRARY_PATH": path}


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where an installed perf_analyzer lies: below $XDG_CACHE_HOME, or ~/.cache."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "conch" / f"perf_analyzer-{WHEEL_VERSION}"


@functools.cache
def find() -> Analyzer:
    """The perf_analyzer to use. Raises: ConchError, with what was tried and how to get one."""
    named = os.environ.get(VARIABLE, "")
    if named == CONTAINER:
        return in_container()
    tried: list[str] = []
    candidates = [named] if named else [shutil.which(NAME) or "", str(cache_folder() / NAME)]
    for path in filter(None, candidates):
        if not Path(path).is_file():
            tried.append(f"{path}: no file")
            continue
        for libraries in (None, cache_folder() / "libraries"):
            if libraries is not None and not _link_libraries(libraries):
                tried.append(f"{path}: no nvidia-pytriton to take {' and '.join(LIBRARIES)} from")
                continue
            answer = _version(path, libraries)
            if isinstance(answer, Analyzer):
                return answer
            tried.append(f"{path}: {answer}")
    raise ConchError(
        "perf_analyzer was not found, or does not run here",
        got="; ".join(dict.fromkeys(tried)) or f"none in the PATH, none in {cache_folder()}",
        fix=f"`conch perf install` gets one; or name one in {VARIABLE}, or set {VARIABLE}=docker for {IMAGE}",
    )


def find_or_install() -> Analyzer:
    """`find`, and where there is none at all `install`, with a word to the user. Raises: ConchError."""
    if not os.environ.get(VARIABLE) and not shutil.which(NAME) and not (cache_folder() / NAME).is_file():
        from conch.terminal import console

        console.print(f"getting perf_analyzer {WHEEL_VERSION} from pip into {cache_folder()}", markup=False)
        return install()
    try:
        return find()
    except ConchError:
        # Newer wheels of tritonclient put one into the PATH that wants a newer glibc.
        if os.environ.get(VARIABLE) or (cache_folder() / NAME).is_file():
            raise
        return install()


def install() -> Analyzer:
    """Get the binary from tritonclient's wheel into the cache folder; one that runs is kept. Raises: ConchError."""
    folder = cache_folder()
    find.cache_clear()
    if not (folder / NAME).is_file():
        _fetch(folder)
    _link_libraries(folder / "libraries")
    answers = [_version(str(folder / NAME), libraries) for libraries in (None, folder / "libraries")]
    for answer in answers:
        if isinstance(answer, Analyzer):
            return answer
    raise ConchError(
        "the installed perf_analyzer does not run here",
        where=folder / NAME,
        got=answers[-1],
        fix="pip install -e '.[server]' brings the libraries that it needs; "
        f"or set {VARIABLE}=docker to use NVIDIA's container",
    )


def in_container() -> Analyzer:
    """The perf_analyzer of NVIDIA's SDK image. Raises: ConchError without docker."""
    if shutil.which("docker") is None:
        raise ConchError(
            "there is no docker to run perf_analyzer in",
            got=f"{VARIABLE}={CONTAINER}",
            fix=f"install docker, or unset {VARIABLE} and run `conch perf install`",
        )
    return Analyzer(NAME, release(DEFAULT_TARGET).server_version, image=IMAGE)


def _fetch(folder: Path) -> None:
    """Unpack the wheel beside the folder, and move the binary in."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".getting-") as staging:
        wheel = f"tritonclient=={WHEEL_VERSION}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", staging, wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        binary = Path(staging, "bin", NAME)
        if done.returncode or not binary.is_file():
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
            raise ConchError(
                "perf_analyzer could not be got from pip",
                where=" ".join(command[1:]),
                got="; ".join(lines[-3:]) or "a wheel without the binary",
                fix="check the network and pip's index; or put a perf_analyzer into the PATH",
            )
        binary.chmod(0o755)
        os.replace(binary, folder / NAME)


def _link_libraries(folder: Path) -> bool:
    """Link the libraries of nvidia-pytriton by their plain names; False where it is not installed."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return False
    carried = Path(next(iter(spec.submodule_search_locations))).parent / "nvidia_pytriton.libs"
    for plain, beginning in LIBRARIES.items():
        source = next(iter(sorted(carried.glob(f"{beginning}*"))), None)
        if source is None:
            return False
        link = folder / plain
        if not (link.is_symlink() and Path(os.readlink(link)) == source):
            folder.mkdir(parents=True, exist_ok=True)
            beside = folder / f".{plain}.{os.getpid()}"
            beside.symlink_to(source)
            os.replace(beside, link)  # others may be looking
    return True


def _version(path: str, libraries: Path | None) -> Analyzer | str:
    """Start it; what it is, or why it does not run."""
    candidate = Analyzer(path, "", libraries)
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT_S,
            env=candidate.environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    words = (done.stdout + done.stderr).replace("(", " ").split()
    return Analyzer(path, next((w for w in words if w[:1].isdigit()), "unknown"), libraries)
