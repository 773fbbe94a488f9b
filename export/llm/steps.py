"""The whole path of a language model's export, top to bottom: from a checkpoint to a version in the repository.

As in `export.steps`, everything is put together in a stage, which is gone when anything fails.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from conch import __version__, lint
from conch.errors import ExportError
from conch.manifest import Golden, Manifest, Parity, digest_files
from conch.model_config import render
from conch.repository import Repository, Stage
from conch.terminal import progress
from export import from_huggingface_checkpoint as checkpoints
from export import go_live
from export.llm import compare, convert, trial, write_generate, write_vllm
from export.llm.options import LlmOptions, OpenVinoOptions, VllmOptions
from export.llm.source import LlmSource
from export.report import Report
from export.steps import Steps
from export.write_model import StagedModel


def run(source: LlmSource, options: LlmOptions) -> Report:
    """Export a checkpoint as the next version of ``options.name``.

    Raises: ConchError, naming the check that failed with both values; the repository is then as it was.
    """
    options.check()
    if isinstance(options, VllmOptions):
        return _run_vllm(source, options)
    assert isinstance(options, OpenVinoOptions)
    return _run_openvino(source, options)


def _run_openvino(source: LlmSource, options: OpenVinoOptions) -> Report:
    convert.check_installed()
    repository = Repository(options.repository)
    with progress() as bars, repository.stage() as stage:
        work = stage.path.parent / "work"
        work.mkdir()
        steps = Steps(bars, work)
        with steps.step("ask the source"):
            checkpoint = checkpoints.Checkpoint(source.folder, str(source.provenance.get("model", "")), None)
            module = checkpoints.load_model(checkpoint, "AutoModelForCausalLM", "text generation")
            parameters = sum(p.numel() for p in module.parameters())
            expected = compare.ask_source(source, module)
            del module  # its memory is for the converter now
        with steps.step(f"convert to {options.weight_format}"):
            convert.convert(
                source.folder, work / "model", weight_format=options.weight_format, group_size=options.group_size
            )
        with steps.step("compare with the source"):
            logits = compare.openvino_logits(work / "model" / convert.MODEL_FILE)
            agreement = compare.compare(expected, logits, options.weight_format)
            del logits
        with steps.step("write"):
            model = write_generate.write(stage, source, options, work / "model")
            check_lint(stage)
        with steps.step("trial load"):
            tried = trial.run(stage, options.name, source, expected, options)
        with steps.step("commit"):
            rows = (*agreement.rows(), *tried.parity)
            provenance = {**source.provenance, "parameters": parameters}
            more = {"agreement": agreement.to_json()}
            _write_manifest(model, provenance, options.settings() | more, convert.PACKAGES, rows, tried.golden)
            size = _size(model.folder)
            live = go_live.go_live(stage)
    told = tuple(f"{what}: {figure}" for what, figure in compare.describe(agreement).items())
    return Report(
        name=options.name,
        version=live.version,
        server=live.server,
        repository=repository.root,
        models={options.name: size},
        parity=agreement.rows(),
        served_parity=tried.parity,
        steps_s=steps.seconds,
        trial=tried.note,
        source=provenance,
        versions=versions(convert.PACKAGES),
        notes=(*told, *source.notes, *((live.note,) if live.note else ())),
        infer_arguments=_infer_arguments(source, chat=source.facts.chat_template is not None),
    )


def _run_vllm(source: LlmSource, options: VllmOptions) -> Report:
    repository = Repository(options.repository)
    with progress() as bars, repository.stage() as stage:
        steps = Steps(bars, stage.path.parent)
        with steps.step("write"):
            model = write_vllm.write(stage, source, options)
            check_lint(stage)
        with steps.step("commit"):
            _write_manifest(model, source.provenance, options.settings(), ("transformers",), (), ())
            size = _size(model.folder)
            live = go_live.go_live(stage)
    return Report(
        name=options.name,
        version=live.version,
        server=live.server,
        repository=repository.root,
        models={options.name: size},
        parity=(),
        steps_s=steps.seconds,
        trial="left out: vLLM needs a GPU and NVIDIA's image; nothing was loaded or asked",
        source=source.provenance,
        versions=versions(("transformers",)),
        notes=(*source.notes, *write_vllm.notes(source, options), *((live.note,) if live.note else ())),
        infer_arguments=_infer_arguments(source, chat=False),
    )


def _infer_arguments(source: LlmSource, *, chat: bool) -> str:
    """What follows `conch infer NAME`; vLLM's backend takes no chat, which is rendered before it."""
    return f"--prompt {shlex.quote(source.questions[0])}{' --chat' if chat else ''} --stream --sampling max_tokens=64"


def check_lint(stage: Stage) -> None:
    """Raise ExportError for what would stop Triton from loading the staged version."""
    errors = lint.check(stage.path).errors
    if errors:
        raise ExportError(
            f"{errors[0].rule} {errors[0].message}",
            where=errors[0].file,
            got=errors[0].got or None,
            expected=errors[0].expected or None,
            fix=errors[0].fix or None,
        )


def _write_manifest(
    model: StagedModel,
    provenance: Mapping[str, Any],
    settings: Mapping[str, Any],
    packages: tuple[str, ...],
    parity: tuple[Parity, ...],
    golden: tuple[Golden, ...],
) -> None:
    Manifest(
        model=model.name,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source={**provenance, "versions": versions(packages)},
        files=digest_files(model.folder),
        config=render(model.config),
        settings=settings,
        parity=parity,
        golden=golden,
        packages=model.packages,
    ).write(model.folder)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of conch and of the packages that took part."""
    return {"conch": __version__, **{name: metadata.version(name) for name in packages}}


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
