"""`conch export`: a model in, a checked version in the repository out.

Each command loads its kind of source with the module `from_X`, and hands it to `steps.run`, which does everything else.
Nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conch.errors import ExportError
from conch.releases import DEFAULT_TARGET, RELEASES
from export.llm.cli import llm
from export.options import FORMATS, PIPELINES, PRECISIONS, ExportOptions

if TYPE_CHECKING:
    from export.report import Report
    from export.source import Source

TASKS = ("embeddings", "text-classification", "token-classification", "rerank", "image-classification")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PATH = click.Path(exists=True, path_type=Path)  # a folder of images is one too

_WHERE = (
    click.option(
        "--repository",
        type=click.Path(file_okay=False, path_type=Path),
        default="model_repository",
        show_default=True,
        help="The folder that Triton serves.",
    ),
    click.option(
        "--trial/--no-trial",
        default=True,
        help="Load and ask the new version in a scratch Triton before it goes live.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout."),
)

_PIPELINE = click.option(
    "--pipeline",
    type=click.Choice(PIPELINES),
    default="auto",
    show_default=True,
    help="An ensemble of a model a part, or a single model that does it all in one process: fewer hops on a CPU. "
    "auto: as the repository has it; a new one is single with int8, which runs on CPUs, and else an ensemble.",
)

_SHARED = (
    click.option("--name", help="The model's name in the repository.  [default: from the source]"),
    click.option("--format", "format_", type=click.Choice(FORMATS), help="The file to serve.  [default: onnx]"),
    click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True),
    click.option("--calibration", type=_PATH, help="Data to fix int8 scales on beforehand (static int8)."),
    click.option("--optimize", is_flag=True, help="Fuse operators now, not at every load."),
    click.option("--opset", type=click.IntRange(min=9), help="ONNX opset.  [default: what suits the target]"),
    click.option(
        "--target",
        type=click.Choice([r.tag for r in RELEASES]),
        default=DEFAULT_TARGET,
        show_default=True,
        help="The Triton release that must load the version.",
    ),
    click.option(
        "--max-batch-size", type=click.IntRange(min=0), default=32, show_default=True, help="0: no batch dimension."
    ),
    click.option(
        "--instances", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of the model that run."
    ),
    click.option(
        "--max-queue",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Requests that may wait; more are refused at once. 0: all may. Needs 2 instances.",
    ),
    click.option("--rules", type=_FILE, help="rules.yaml: thresholds under which the answer is `others`."),
    click.option("--samples", type=_PATH, help="Real inputs to compare with the source on."),
    click.option("--atol", type=click.FloatRange(min=0), help="Largest difference allowed.  [default: by precision]"),
    *_WHERE,
)

Command = Callable[..., None]


def _with(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """Add options to a command, in the order in which help shows them."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


shared_options = _with(_SHARED)
where_options = _with(_WHERE)


@click.group()
def export() -> None:
    """Turn a model into a new version in the repository.

    The model is converted, loaded, compared with its source on real samples, tried in a scratch Triton, and only then
    renamed into place. When a check fails, the repository stays as it was.

    \b
    Examples:
      conch export sklearn churn.joblib --sample customers.csv
      conch export huggingface ./my-minilm --task embeddings --precision int8
      conch export llm ./my-llama --weight-format int4
      conch export sample all
    """


@export.command()
@click.argument("model", metavar="MODULE:FACTORY|FILE.pt")
@click.option("--dynamic", multiple=True, metavar="INPUT:AXIS", help="An axis of any length (the batch is axis 0).")
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Names of the outputs, in order.")
@click.option("--trust", is_flag=True, help="Load a pickled FILE.pt: this runs the code in it.")
@shared_options
def torch(model: str, dynamic: tuple[str, ...], outputs: tuple[str, ...], trust: bool, **shared: Any) -> None:
    """Export a PyTorch module.

    FACTORY takes nothing and returns the module and its example inputs by name, batched; the names are those of
    forward's arguments. FILE.pt is TorchScript, or a pickled module (--trust), with its inputs in --samples FILE.npz.

    \b
    Examples:
      conch export torch my_model:build --dynamic tokens:1
      conch export torch scripted.pt --samples inputs.npz
    """
    with _command(shared, _stem(model.split(":")[0])) as (options, finish):
        from export import from_torch, from_torch_target

        if not shared["format_"] and from_torch_target.is_torchscript(model):
            options = dataclasses.replace(options, format="torchscript")
        finish(options, lambda: from_torch.load(model, options, dynamic=dynamic, outputs=outputs, trust=trust))


@export.command()
@click.argument("file", type=_FILE, metavar="FILE.onnx")
@shared_options
def onnx(file: Path, **shared: Any) -> None:
    """Export an ONNX file, with its external data.

    It is taken as it is, unless --opset asks for a conversion. Without --samples, inputs are made up from its shapes.

    \b
    Examples:
      conch export onnx model.onnx --samples inputs.npz
      conch export onnx model.onnx --precision int8 --name small
    """
    with _command(shared, _stem(file.name)) as (options, finish):
        from export import from_onnx

        finish(options, lambda: from_onnx.load(file, options))


@export.command()
@click.argument("file", type=_FILE, metavar="FILE.joblib")
@click.option("--sample", type=_FILE, required=True, help="A CSV file of real rows, with the columns of the training.")
@click.option("--trust", is_flag=True, help="The file is yours: loading it runs the code in it.")
@shared_options
def sklearn(file: Path, sample: Path, trust: bool, **shared: Any) -> None:
    """Export a scikit-learn estimator or pipeline.

    \b
    Examples:
      conch export sklearn churn.joblib --sample customers.csv --trust
      conch export sklearn spam.joblib --sample messages.csv --trust --rules rules.yaml
    """
    with _command(shared, _stem(file.name)) as (options, finish):
        from export import from_sklearn

        finish(options, lambda: from_sklearn.load(file, sample, options, trust=trust))


@export.command()
@click.argument("path_or_id")
@click.option("--task", type=click.Choice(TASKS), required=True, help="What the pipeline answers.")
@_PIPELINE
@shared_options
def huggingface(path_or_id: str, task: str, **shared: Any) -> None:
    """Export a Hugging Face model with its tokenizer or image processor.

    \b
    Examples:
      conch export huggingface ./my-minilm --task embeddings --precision int8
      conch export huggingface distilbert/distilbert-base-uncased-finetuned-sst-2-english --task text-classification
    """
    with _command(shared, _stem(path_or_id.rstrip("/").rsplit("/", 1)[-1], suffix=False)) as (options, finish):
        from export import from_huggingface

        finish(options, lambda: from_huggingface.load(path_or_id, task, options))


@export.command()
@click.argument("sample_name", metavar="NAME|all")
@click.option("--name", help="The model's name in the repository.  [default: the sample's]")
@_PIPELINE
@where_options
def sample(sample_name: str, name: str | None, pipeline: str, repository: Path, trial: bool, as_json: bool) -> None:
    """Train or load one of the sample models, and export it.

    \b
    Examples:
      conch export sample spam
      conch export sample all
      conch export sample embeddings --pipeline ensemble --name embeddings_ensemble
    """
    from export import report, samples

    everything = sample_name == "all"
    if everything and name is not None:
        raise click.UsageError("--name is for one sample, not for all of them")
    names = samples.SAMPLES if everything else (sample_name,)
    reports = []
    for each in names:
        module = samples.sample(each)
        options = dataclasses.replace(module.options(repository), trial=trial)
        if name is not None:
            options = dataclasses.replace(options, name=name)
        if isinstance(options, ExportOptions):  # a sample that generates text is one model anyhow
            options = dataclasses.replace(options, pipeline=pipeline)
            if pipeline == "single":
                options = dataclasses.replace(options, format="onnx")  # what a single model runs
        with _extras():
            reports.append(_export(options, functools.partial(module.source, options)))
        report.print_report(reports[-1])
    if as_json:
        from conch.terminal import print_json

        documents = [r.to_json() for r in reports]
        print_json(documents if everything else documents[0])


export.add_command(llm)

Finish = Callable[[ExportOptions, Callable[[], "Source"]], None]


@contextmanager
def _command(shared: dict[str, Any], default_name: str) -> Iterator[tuple[ExportOptions, Finish]]:
    """The options of a command, and what ends it: load, export, report."""
    options = _options(shared, default_name)
    options.check()

    def finish(chosen: ExportOptions, load: Callable[[], Source]) -> None:
        from conch.terminal import print_json
        from export.report import print_report

        report = _export(chosen, load)
        print_report(report)
        if shared["as_json"]:
            print_json(report.to_json())

    with _extras():
        yield options, finish


@contextmanager
def _extras() -> Iterator[None]:
    """Name the extra to install when a framework is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ExportError(
            f"exporting needs the package {error.name}",
            got=error,
            fix="pip install -e '.[export]' in conch's checkout",
        ) from error


def _options(shared: dict[str, Any], default_name: str) -> ExportOptions:
    values = {key: value for key, value in shared.items() if key not in ("as_json", "format_", "name")}
    return ExportOptions(name=shared["name"] or default_name, format=shared["format_"] or "onnx", **values)


def _export(options: Any, load: Callable[[], Any]) -> Report:
    from conch.terminal import progress
    from export import samples

    with progress() as bars:
        bars.add_task("load", total=None)
        source = load()
    return samples.run(source, options)


def _stem(text: str, *, suffix: bool = True) -> str:
    """A model name made of a file's or module's: what Triton and a shell take without quoting."""
    name = Path(text).stem if suffix and Path(text).suffix in (".pt", ".pth", ".onnx", ".joblib", ".pkl") else text
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "model"
