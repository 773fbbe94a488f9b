"""What stands around a sweep: which model, where it is served, with which inputs, and the folder that it is kept in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.model_config import render, signature_of
from conch.releases import DEFAULT_TARGET, release
from conch.repository import Repository
from conch.tensor_spec import ModelSignature
from perf.analyzer import binary
from perf.analyzer.inputs import Inputs, for_model
from perf.analyzer.measure import measure
from perf.points import Load, Point, now, this_machine
from perf.sweep import record
from perf.sweep.plan import Plan, check_batches
from perf.sweep.record import Sweep
from perf.sweep.run import Step, carry_out, check_same_machine
from perf.sweep.target import RunningTarget, ScratchTarget, Serving, Target, scaled_model


@dataclass(frozen=True)
class Place:
    """The repository, and the address of a running server where one is to be measured."""

    repository: Path
    server: str | None = None

    def release(self) -> str:
        """The Triton that is measured. Raises: ClientError when the running server does not answer."""
        if self.server is None:
            return release(DEFAULT_TARGET).server_version
        from clients import Client

        with Client(self.server, timeout_s=30.0, retries=0) as client:
            return client.server().version

    def signature(self, name: str, version: str) -> ModelSignature:
        """The model's tensors. Raises: ClientError, RepositoryError, ConfigError."""
        if self.server is None:
            return signature_of(Repository(self.repository).config(name))
        from clients import Client

        with Client(self.server, timeout_s=30.0, retries=0) as client:
            return client.metadata(name, version or None).signature


def begin(name: str, place: Place, plan: Plan) -> Sweep:
    """A sweep with nothing measured yet: what can be known to be wrong is found here. Raises: ConchError."""
    binary.find_or_install()
    signature = place.signature(name, plan.template.version)
    check_batches(plan, signature.max_batch_size)
    notes = []
    if plan.instances != (None,):
        scaled = scaled_model(Repository(place.repository), name, plan.scaled or None)
        plan = dataclasses.replace(plan, scaled=scaled)
        notes.append(f"instances are those of {scaled}; the threads of each are left as configured")
    notes.append(f"inputs: {_inputs(plan, signature, place).origin}")
    notes.append("measured on a server that was running" if place.server else "measured on a server of its own")
    return Sweep(name, now(), plan, this_machine(place.release()), notes=tuple(notes))


def new_folder(results: Path, sweep: Sweep) -> Path:
    """A folder of the sweep's own, with its file in it already. Raises: ConchError."""
    stamp = re.sub(r"[^0-9T]", "", sweep.at[:19])
    number = 1
    while True:
        folder = results / sweep.name / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
            record.write(sweep, folder)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConchError("the sweep's folder cannot be written", where=folder, got=error.strerror) from error


def find(results: Path, name: str) -> tuple[Path, Sweep]:
    """The newest sweep of a model, with what failed to be tried again. Raises: ConchError when none is there."""
    folder = record.newest(results, name)
    if folder is None:
        raise ConchError(
            f"there is no sweep of {name} to go on with", where=results / name, fix="leave out --resume to begin one"
        )
    return folder, record.read(folder).without_failures()


@contextmanager
def steps(sweep: Sweep, folder: Path, place: Place) -> Iterator[Iterator[Step]]:
    """The sweep's steps, on a server that ends with the block. Raises: ConchError."""
    template = sweep.plan.template
    check_same_machine(sweep, this_machine(place.release()))
    inputs = _inputs(sweep.plan, place.signature(template.model, template.version), place)

    def ask(load: Load, url: str) -> Point:
        return measure(load, url, inputs)

    with _target(sweep.plan, place) as target:
        yield carry_out(sweep, target, ask, folder)


@contextmanager
def _target(plan: Plan, place: Place) -> Iterator[Target]:
    name, version = plan.template.model, plan.template.version
    if place.server is not None:
        yield RunningTarget(_running(name, version, place.server))
        return
    chosen = int(version) if version else None
    with ScratchTarget(Repository(place.repository), name, plan.scaled, chosen) as target:
        yield target


def _running(name: str, version: str, server: str) -> Serving:
    """A model on a running server. Raises: ClientError, ServerError."""
    from clients import Client
    from clients.address import parse_address
    from server.control import Control

    with Client(server, timeout_s=30.0, retries=0) as client:
        versions = client.metadata(name, version or None).versions
    config_text = ""
    if parse_address(server).is_grpc:
        with Control(server) as control:
            config_text = render(control.config(name))
    newest = version or max(versions, key=int, default="")
    return Serving(server, server, newest, config_text)


def _inputs(plan: Plan, signature: ModelSignature, place: Place) -> Inputs:
    file = plan.inputs.get("file")
    return for_model(
        plan.template.model,
        signature,
        file=Path(file) if file else None,
        repository=place.repository,
        version=plan.template.version,
    )
