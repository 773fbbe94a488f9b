"""Export a workload's sample in each form that is not there, and keep the model as its framework has it.

    python -m perf.contenders.prepare WORKLOAD REPOSITORY

A process of its own: torch and the rest are out of memory when it is measured.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

from conch.errors import ConchError
from conch.repository import Repository
from conch.terminal import console
from perf.contenders.workloads import WORKLOADS, Workload, check_same_graph

ROOT = Path(__file__).resolve().parents[2]


def checkpoint(workload: Workload, repository: Repository) -> Path:
    """Where the model lies as its framework has it: a folder of transformers', a pickle, or a TorchScript file."""
    if workload.name == "text":
        from export.samples.embeddings import find_model

        return find_model()[0].absolute()
    suffix = {"tabular": "pickle", "image": "pt"}[workload.name]
    return repository.root.parent / "checkpoints" / f"{workload.sample}.{suffix}"


def prepare(workload: Workload, repository: Repository) -> None:
    """Export what is missing. Raises: ConchError, also when the forms hold different graphs."""
    if missing(workload, repository) or not checkpoint(workload, repository).exists():
        console.print(f"exporting the {workload.sample} sample into {repository.root}")
        command = [sys.executable, "-m", "perf.contenders.prepare", workload.name, str(repository.root)]
        ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        if ended.returncode:
            raise ConchError(f"the {workload.sample} sample was not exported", fix="see what it says above")
    check_same_graph(workload, repository)


def missing(workload: Workload, repository: Repository) -> list[str]:
    """The names of the workload's models that have no version yet."""
    present = repository.model_names()
    return [name for name in workload.forms if name not in present or not repository.versions(name)]


def _export(workload: Workload, repository: Repository) -> None:
    from export import samples, steps

    module = samples.sample(workload.sample)
    for name in missing(workload, repository):
        # The others run ONNX Runtime: so the same file needs to be ONNX.
        options = module.options(repository.root)
        options = dataclasses.replace(options, name=name, format="onnx", pipeline=workload.forms[name])
        if options.pipeline == "single":  # all of it in one process, which is one core's
            options = dataclasses.replace(options, instances=os.cpu_count() or 1)
        steps.run(module.source(options), options)


def _keep_checkpoint(workload: Workload, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if workload.name == "tabular":
        from export.samples import churn

        frame = churn.customers()
        path.write_bytes(pickle.dumps(churn.train(frame[len(frame) // 4 :])))
    else:
        import torch

        from export.samples import digits

        network = digits.train_network(digits.load_digits()[0])
        torch.jit.trace(network, torch.zeros(1, 1, digits.SIZE, digits.SIZE)).save(str(path))


if __name__ == "__main__":
    chosen, into = WORKLOADS[sys.argv[1]], Repository(Path(sys.argv[2]))
    try:
        _export(chosen, into)
        if not (kept := checkpoint(chosen, into)).exists():
            _keep_checkpoint(chosen, kept)
    except ConchError as error:
        console.print(str(error), markup=False)
        raise SystemExit(1) from error
