"""What a sweep asks: a scratch server whose instances it may change, or a running server that it leaves as it is.

The user's repository is only read: a scratch server serves links to its version folders under configs of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from conch.errors import ConchError, RepositoryError, ServerError, nearest
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, parse, render
from conch.repository import Repository

if TYPE_CHECKING:
    from server.embedded import EmbeddedServer

START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Serving:
    """A model that is ready to be asked. ``version`` is its number as text; ``config_text`` what it is served by."""

    grpc_url: str
    http_url: str
    version: str
    config_text: str

    def url(self, protocol: str) -> str:
        """The address for `grpc` or `http`."""
        return self.grpc_url if protocol == "grpc" else self.http_url


class Target(Protocol):
    """Whatever can serve the model with a number of instances."""

    def at(self, instances: int | None) -> Serving:
        """The model with so many instances, None for as configured. Raises: ConchError when it cannot be had."""


class RunningTarget:
    """A server that runs, which is asked and never changed."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def at(self, instances: int | None) -> Serving:
        """The server as it is. Raises: ServerError when it were to be changed."""
        if instances is not None:
            raise ServerError("a running server is left as it is", got=f"instances {instances}", fix="leave --url out")
        return self._serving


class ScratchTarget:
    """An embedded server on a temporary repository with the model and all that it needs.

    ``scaled`` is the model whose instances are changed. ``version`` None is the one that the config serves;
    ``own_config`` serves a version by the config in its manifest, where there is one, and not by the live one.
    The server starts when it is first needed, again when it has died, and ends with the block.
    """

    def __init__(
        self, live: Repository, model: str, scaled: str = "", version: int | None = None, *, own_config: bool = False
    ) -> None:
        from server import binary
        from server.rollout.scratch_repository import lay_out

        self._model, self._scaled = model, scaled
        self._folder = Path(tempfile.mkdtemp(prefix="conch-sweep-"))
        try:
            shown = live
            if version is not None:
                shown = Repository(self._folder / "view")
                show_version(live, model, version, shown.root, own_config=own_config)
            self._scratch = lay_out(self._folder / "repository", {}, {}, shown, 0, also=[model], gpu=binary.has_gpu())
        except BaseException:
            self.close()
            raise
        self.notes = self._scratch.notes
        self.version = self._scratch.versions[model]
        self._now: dict[str, ModelConfigMessage] = dict(self._scratch.configs)
        self._server: EmbeddedServer | None = None
        self._failed: dict[int | None, ConchError] = {}

    def at(self, instances: int | None) -> Serving:
        """Change the instances, where they are not those already. Raises: ModelLoadError, ServerError."""
        if instances in self._failed:
            raise self._failed[instances]
        wanted = self._config(instances)
        try:
            if self._server is None or not self._server.is_running():
                self._write(wanted)
                self._start()
            elif wanted is not None and wanted != self._now[self._scaled]:
                self._write(wanted)
                self._load()
        except ConchError as error:
            self._failed[instances] = error  # it would fail again for each load
            raise
        server = self._server
        assert server is not None
        return Serving(server.grpc_url, server.http_url, str(self.version), joined(self._now, self._model))

    def close(self) -> None:
        """End the server, and remove what was written."""
        server = getattr(self, "_server", None)
        if server is not None:
            server.kill()
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> ScratchTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _config(self, instances: int | None) -> ModelConfigMessage | None:
        """The config of the scaled model; None when nothing is scaled."""
        if not self._scaled:
            return None
        original = self._scratch.configs[self._scaled]
        return original if instances is None else with_instances(original, instances)

    def _write(self, config: ModelConfigMessage | None) -> None:
        if config is None:
            return
        from conch.switching import files

        # Its time of change must differ from the old file's: that is how Triton sees that it changed.
        files.write(self._scratch.root / self._scaled / CONFIG_FILE, render(config).encode(), self._folder)
        self._now[self._scaled] = config

    def _start(self) -> None:
        from server.embedded import EmbeddedServer
        from server.options import ServerOptions

        if self._server is not None:
            self._server.stop()
        options = ServerOptions(
            control="explicit", load_models=(self._model,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1
        )
        server = EmbeddedServer(self._scratch.root, options, start_timeout_s=START_TIMEOUT_S)
        self._server = server
        server.start()

    def _load(self) -> None:
        from server.control import Control

        assert self._server is not None
        with Control(self._server.grpc_url) as control:
            control.load(self._scaled)
            if self._scaled != self._model:
                control.load(self._model)  # an ensemble is checked against its members
            served = control.config(self._scaled)
        counts = sum(group.count for group in served.instance_group)
        wanted = sum(group.count for group in self._now[self._scaled].instance_group)
        if counts != wanted and wanted:
            raise ServerError(f"Triton did not take the instances of {self._scaled}", got=counts, expected=wanted)


def scaled_model(live: Repository, name: str, member: str | None) -> str:
    """The model whose instances are changed: the model itself, or of an ensemble the member ``member``.

    Without a word that is NAME_model, or the only member. Raises: RepositoryError.
    """
    members = [str(step.model_name) for step in live.config(name).ensemble_scheduling.step]
    choices = members or [name]
    if member is not None:
        if member not in choices:
            close = nearest(member, choices)
            fix = f"did you mean {close}?" if close else None
            raise RepositoryError(
                f"{name} has no member of this name", got=member, expected=", ".join(choices), fix=fix
            )
        return member
    if f"{name}_model" in choices:
        return f"{name}_model"
    if len(choices) == 1:
        return choices[0]
    raise RepositoryError(
        f"{name} is an ensemble, which has no instances of its own",
        expected=", ".join(choices),
        fix="name the member whose instances to change with --member",
    )


def with_instances(config: ModelConfigMessage, count: int) -> ModelConfigMessage:
    """The config with so many instances, of the kind that its first instance group has."""
    copy = ModelConfig()
    copy.CopyFrom(config)
    del copy.instance_group[1:]
    if not copy.instance_group:
        copy.instance_group.add()  # KIND_AUTO: where Triton finds a GPU, there
    copy.instance_group[0].count = count
    return copy


def show_version(live: Repository, name: str, version: int, root: Path, *, own_config: bool) -> None:
    """Lay out, as links, one version of a model alone, with a pipeline's members of the same version.

    Raises: RepositoryError when the model, or a part of it, has no such version.
    """
    config = _config_for(live, name, version, own_config=own_config)
    for step in config.ensemble_scheduling.step:
        step.model_version = -1
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(render(config), encoding="utf-8")
    (folder / str(version)).symlink_to(live.version_path(name, version))
    for path in sorted(live.model_path(name).iterdir()):
        if path.is_file() and path.name != CONFIG_FILE:  # label files
            (folder / path.name).symlink_to(path)
    for member in dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step):
        part = version if version in live.versions(member) else live.latest(member)
        show_version(live, member, part, root, own_config=own_config)


def _config_for(live: Repository, name: str, version: int, *, own_config: bool) -> ModelConfigMessage:
    """The config to serve a version by, with nothing that names other versions."""
    manifest = live.manifest(name, version) if own_config else None
    config = parse(manifest.config, name) if manifest is not None and manifest.config else live.config(name)
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.name = name
    copy.ClearField("version_policy")
    return copy


def joined(configs: Mapping[str, ModelConfigMessage], name: str) -> str:
    """The text of a model's config, followed by those of the models that it needs."""
    names: Sequence[str] = [name, *(other for other in configs if other != name)]
    if len(names) == 1:
        return render(configs[name])
    return "\n".join(f"# {each}/{CONFIG_FILE}\n{render(configs[each])}" for each in names)
