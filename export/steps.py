"""The whole path of an export, top to bottom: from a loaded source to a version in the repository.

Everything is put together in a stage, which is gone when anything fails: the repository sees a whole version or none.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from conch.releases import release
from conch.repository import Repository
from conch.terminal import progress
from export import check_graph, go_live, golden, optimize, parity, quantize, trial, write_model, write_single
from export.options import ExportOptions
from export.report import Report
from export.run_file import FILE_NAMES
from export.source import Source

# Less free space than this, and a failure is put down to the disk.
FULL_BYTES = 64 << 10


def run(source: Source, options: ExportOptions) -> Report:
    """Export a source as the next version of ``options.name``.

    Raises: ConchError, naming the check that failed with both values; the repository is then as it was.
    """
    repository = Repository(options.repository)
    options = options.with_form(repository)
    options.check()
    source = write_model.with_rules(source, options)
    target = release(options.target)
    with progress() as bars, repository.stage() as stage:
        # In the stage's folder, so that it goes with the stage, and moving from here is a rename.
        work = stage.path.parent / "work"
        work.mkdir()
        steps = Steps(bars, work)
        file = work / FILE_NAMES[options.format]
        with steps.step("convert"):
            source.write(file, options)
        # fp16 is made of the fused graph; int8 before it is fused, as the quantizer knows the plain operators alone.
        if options.optimize and options.precision != "int8":
            with steps.step("optimize"):
                optimize.optimize(file, source, options)
        if options.precision != "fp32":
            with steps.step(f"convert to {options.precision}"):
                quantize.quantize(file, source, options)
        if options.optimize and options.precision == "int8":
            with steps.step("optimize"):
                optimize.optimize(file, source, options)
        with steps.step("check the graph"):
            checked = check_graph.check(file, source, target)
        with steps.step("compare with the source"):
            rows = parity.compare(
                checked.run,
                source.reference,
                [*source.samples, *check_graph.probes(source.samples, source.signature)],
                source.signature,
                precision=options.precision,
                atol=options.atol if options.atol is not None else source.tolerances.get(options.precision),
            )
            answers = golden.model_golden(source, checked.run)
        with steps.step("write"):
            single = options.pipeline == "single" and source.pipeline is not None
            models = (write_single if single else write_model).write(stage, source, options, file, checked)
        with steps.step("trial load"):
            tried = trial.run(stage, models, source, options)
        with steps.step("commit"):
            # A pipeline that is one model takes no tensors of the model's own: what its graph answered nobody can ask.
            golden_by_model = {model.name: answers for model in models if model.role == "model"} | dict(tried.golden)
            write_model.write_manifests(models, source, options, checked, rows, tried.parity, golden_by_model)
            sizes = {model.name: _size(model.folder) for model in models}
            live = go_live.go_live(stage)
    return Report(
        name=options.name,
        version=live.version,
        server=live.server,
        repository=repository.root,
        models=sizes,
        parity=rows,
        served_parity=tried.parity,
        steps_s=steps.seconds,
        trial=tried.note,
        source=source.provenance,
        versions=write_model.versions(),
        opset=checked.opset,
        ir_version=checked.ir_version,
        notes=(*source.notes, live.note) if live.note else source.notes,
        infer_arguments=source.infer_arguments or infer_arguments(source),
    )


@dataclass
class Steps:
    """Shows one line a step while it runs, and remembers how long each took.

    A library that fails for want of disk space says so in its own way, or not at all; so ``folder``'s file system is
    looked at when one fails.
    """

    bars: Progress
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step of the export. Raises: OSError for whatever fails on a full disk."""
        task = self.bars.add_task(name, total=None)
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            if shutil.disk_usage(self.folder).free < FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder)) from error
            raise
        self.seconds[name] = round(time.monotonic() - start, 3)
        self.bars.update(task, total=1, completed=1)


def infer_arguments(source: Source) -> str:
    """What follows `conch infer NAME` for these inputs: the first sample's text, or a file of the kind that fits."""
    inputs = source.signature.inputs if source.pipeline is None else source.pipeline.inputs
    names = {spec.name for spec in inputs}
    if "image" in names:
        return "--image FILE"
    if "text" in names and source.pipeline is not None and source.pipeline.requests:
        first = source.pipeline.requests[0]["text"].ravel()[0]
        text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)
        return f"--text {shlex.quote(textwrap.shorten(text, 60, placeholder=' ...'))}"
    return "--csv FILE.csv" if all(spec.dims == (1,) for spec in inputs) else "--json FILE.json"


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
