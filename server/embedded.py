"""A Triton server of our own, from the binary in the installed nvidia-pytriton: no Docker, no root, no GPU needed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from server import binary
from server.lifecycle import UNLOAD_S, TritonServer
from server.options import ServerOptions, flags
from server.tethered import Launch

SHARED_MEMORY = Path("/dev/shm")


class EmbeddedServer(TritonServer):
    """A tritonserver process.

        with EmbeddedServer(Path("model_repository"), ServerOptions(http_port=0)) as server:
            print(server.http_url)

    It runs in an empty folder, so that models import what is installed and nothing of this checkout. ``environment``
    adds to this process's.
    """

    def __init__(
        self,
        repository: Path | str | Sequence[Path | str],
        options: ServerOptions = ServerOptions(),  # noqa: B008  (frozen)
        *,
        strict: bool = True,
        start_timeout_s: float = 300.0,
        log_path: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(repository, options, strict=strict, start_timeout_s=start_timeout_s, log_path=log_path)
        self._environment = dict(environment or {})
        # Regions in /dev/shm go by this name, so that those of a server that was killed can be told and removed.
        self._shm_prefix = f"conch_{uuid.uuid4().hex[:12]}_"

    def shared_memory(self) -> list[Path]:
        """The regions that the Python backend holds for this server now."""
        return sorted(SHARED_MEMORY.glob(f"{self._shm_prefix}*"))

    def _prepare(self, scratch: Path) -> Launch:
        installation = binary.find()
        binary.check_environment()
        backends, empty = scratch / "backends", scratch / "empty"
        empty.mkdir()
        binary.assemble(installation, backends)
        command = [
            str(installation.binary),
            *flags(self.options, self.repositories, gpu=binary.has_gpu()),
            f"--backend-directory={backends}",
            f"--cache-directory={installation.caches}",
        ]
        # A Python-based backend has settings of its own, and would otherwise name its regions by its own scheme.
        names = sorted(folder.name for folder in backends.iterdir())
        command += [f"--backend-config={name},shm-region-prefix-name={self._shm_prefix}" for name in names]
        return Launch(
            command=tuple(command),
            environment=binary.environment(installation, {**os.environ, **self._environment}),
            folder=empty,
            grace_s=self.options.exit_timeout_s + UNLOAD_S,
            shm_prefix=self._shm_prefix,
        )

    def _end(self) -> None:
        super()._end()
        for region in self.shared_memory():  # there are some only when the tether was killed
            region.unlink(missing_ok=True)
