"""The same server in NVIDIA's container: `EmbeddedServer`'s interface over ``docker run``.

The command line is built by a pure function. The container is removed when it stops, and when this process dies.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from conch.errors import ServerError
from conch.releases import DEFAULT_TARGET
from server.binary import has_gpu
from server.lifecycle import UNLOAD_S, TritonServer
from server.options import ServerOptions, flags
from server.tethered import Launch

REGISTRY = "nvcr.io/nvidia/tritonserver"
SHM_SIZE_BYTES = 1 << 30
MODELS = "/models"
# Inside the container the ports are Triton's own; outside they are the options'.
INNER_PORTS = (8000, 8001, 8002)


def image_of(tag: str) -> str:
    """NVIDIA's image of a release, e.g. "24.10"."""
    return f"{REGISTRY}:{tag}-py3"


def docker_arguments(
    options: ServerOptions,
    repositories: Sequence[Path],
    *,
    name: str,
    image: str,
    gpu: bool,
    shm_size_bytes: int = SHM_SIZE_BYTES,
) -> list[str]:
    """The arguments of ``docker`` that run a server with these options. Pure; the options' ports must be real.

    Repositories are mounted read-only. ``--ulimit``s are those that NVIDIA's image asks for.
    """
    arguments = ["run", "--rm", f"--name={name}", f"--shm-size={shm_size_bytes}"]
    arguments += ["--ulimit=memlock=-1", "--ulimit=stack=67108864", f"--stop-timeout={options.exit_timeout_s + 5}"]
    if gpu:
        arguments.append("--gpus=all")
    outer = (options.http_port, options.grpc_port, options.metrics_port)
    published = list(zip(outer, INNER_PORTS, strict=True))[: 3 if options.metrics.enabled else 2]
    host = f"[{options.host}]" if ":" in options.host else options.host
    arguments += [f"--publish={host}:{out}:{inner}" for out, inner in published]
    inside = [f"{MODELS}/{position}" for position in range(len(repositories))]
    for source, target in zip(repositories, inside, strict=True):
        arguments.append(f"--mount=type=bind,source={source},target={target},readonly")
    inner_options = dataclasses.replace(options.with_ports(*INNER_PORTS), host="0.0.0.0")
    return [*arguments, image, "tritonserver", *flags(inner_options, inside, gpu=gpu)]


def find_docker() -> str:
    """The path of the docker client, when its engine answers. Raises: ServerError."""
    docker = shutil.which("docker")
    without = "or serve without it: --mode embedded"
    if docker is None:
        raise ServerError(
            "there is no docker command", fix=f"install Docker (https://docs.docker.com/engine), {without}"
        )
    command = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError("docker does not answer", where=docker, got=error, fix=without) from error
    if answer.returncode != 0:
        said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
        raise ServerError(
            "the Docker engine does not answer",
            where=docker,
            got=said[-1] if said else f"exit code {answer.returncode}",
            fix=f"start it (`systemctl start docker`) and see that you may use it, {without}",
        )
    return docker


class ContainerServer(TritonServer):
    """A container of NVIDIA's image, release ``tag``, or of another ``image`` made from it.

    Models whose Python code needs packages need an image that has them: ``docker compose build`` makes one.
    ``gpu`` None gives it the GPUs where there are any. Pulling the image may take most of ``start_timeout_s``.
    """

    def __init__(
        self,
        repository: Path | str | Sequence[Path | str],
        options: ServerOptions = ServerOptions(),  # noqa: B008  (frozen)
        *,
        strict: bool = True,
        start_timeout_s: float = 1800.0,
        log_path: Path | None = None,
        tag: str = DEFAULT_TARGET,
        image: str | None = None,
        gpu: bool | None = None,
        shm_size_bytes: int = SHM_SIZE_BYTES,
    ) -> None:
        super().__init__(repository, options, strict=strict, start_timeout_s=start_timeout_s, log_path=log_path)
        self.image = image or image_of(tag)
        self.name = f"conch-{uuid.uuid4().hex[:12]}"
        self._gpu = has_gpu() if gpu is None else gpu
        self._shm_size_bytes = shm_size_bytes

    def _prepare(self, scratch: Path) -> Launch:
        docker = find_docker()
        arguments = docker_arguments(
            self.options,
            self.repositories,
            name=self.name,
            image=self.image,
            gpu=self._gpu,
            shm_size_bytes=self._shm_size_bytes,
        )
        # SIGTERM reaches Triton through the client. One that is killed leaves its container, so that is removed too.
        return Launch(
            command=(docker, *arguments),
            environment=os.environ,
            folder=scratch,
            grace_s=self.options.exit_timeout_s + 2 * UNLOAD_S,
            cleanup=((docker, "rm", "--force", self.name),),
        )
