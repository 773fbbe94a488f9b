"""How long `conch repo lint` takes on a repository of many models: ensembles of three, with real files.

    python -m perf.lint_many                    # 1,000 models
    python -m perf.lint_many --models 200 --keep /tmp/many

Each pipeline is what an export leaves: a tokenizer in Python, an ONNX model, an ensemble, with manifests. One in ten
has a fault, so that rules do more than look. Prints seconds (and of the CPU), findings, and what each rule costs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from conch.lint import LintOptions, check
from conch.lint.context import Context
from conch.lint.model import RootFolder
from conch.lint.rules import all_rules
from conch.manifest import Manifest, digest_files
from conch.repository import PYCACHE_GUARD, Repository
from conch.terminal import console, print_json, print_table

SOURCE = Path(__file__).resolve().parent.parent / "python_backends" / "text_tokenizer"

TOKENIZER = """
name: "NAME_preprocess"
backend: "python"
max_batch_size: 32
input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }
dynamic_batching { }
instance_group { count: 1 kind: KIND_CPU }
"""
MODEL = """
name: "NAME_model"
backend: "onnxruntime"
max_batch_size: 32
input { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
ENSEMBLE = """
name: "NAME"
platform: "ensemble"
max_batch_size: 32
input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 4 ] }
ensemble_scheduling {
  step { model_name: "NAME_preprocess" model_version: -1
         input_map { key: "text" value: "text" } output_map { key: "input_ids" value: "input_ids" } }
  step { model_name: "NAME_model" model_version: -1
         input_map { key: "input_ids" value: "input_ids" } output_map { key: "logits" value: "logits" } }
}
"""


def write_pipelines(root: Path, models: int, weight_kib: int) -> None:
    """Fill a repository with this many models, three to a pipeline; every tenth pipeline gets a wrong batch size."""
    graph = onnx_file(weight_kib)
    for index in range(-(-models // 3)):
        name = f"pipeline{index:04d}"
        parts = {f"{name}_preprocess": TOKENIZER, f"{name}_model": MODEL, name: ENSEMBLE}
        for part, config in list(parts.items())[: models - 3 * index]:
            version = root / part / "1"
            version.mkdir(parents=True)
            text = config.replace("NAME", name)
            if index % 10 == 0:
                text = text.replace(
                    'max_batch_size: 32\ninput { name: "input_ids"', 'max_batch_size: 16\ninput { name: "input_ids"'
                )
            (root / part / "config.pbtxt").write_text(text, encoding="utf-8")
            if config is MODEL:
                (version / "model.onnx").write_bytes(graph)
            elif config is TOKENIZER:
                for file in SOURCE.glob("*.py"):
                    shutil.copy(file, version)
                (version / PYCACHE_GUARD).touch()
            packages = ("numpy>=1.26,<2", "tokenizers>=0.20")
            manifest = Manifest(part, "2026-01-01T00:00:00+00:00", {}, digest_files(version), text, packages=packages)
            manifest.write(version)


def onnx_file(weight_kib: int) -> bytes:
    """Averaged embeddings, ids INT64 [batch, n] -> logits FP32 [batch, 4], with weights of about this size."""
    from onnx import TensorProto, helper, numpy_helper

    rows = max(1, weight_kib * 256 // 4)
    weights = np.zeros((rows, 4), np.float32)  # [words, 4]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "n"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axes"], ["logits"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1]), "axes")]
    graph = helper.make_graph(nodes, "g", [ids], [logits], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def seconds_by_rule(root: Path) -> dict[str, float]:
    """What each rule costs by itself, on folders that are read already."""
    folder = RootFolder(root)
    context = Context(roots=(folder,), models={m.name: m for m in folder.models}, digests=False)
    times = {}
    for rule in all_rules():
        started = time.perf_counter()
        if rule.repository_check is not None:
            list(rule.repository_check([folder], context))
        if rule.model_check is not None:
            for model in folder.models:
                list(rule.model_check(model, context))
        times[rule.id] = time.perf_counter() - started
    return times


@contextmanager
def _root(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep / "repository"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "repository"


@click.command(help=__doc__)
@click.option("--models", default=1000, show_default=True, help="How many models the repository has.")
@click.option("--weight-kib", default=64, show_default=True, help="The size of each ONNX model's weights, KiB.")
@click.option("--no-digests", is_flag=True, help="Leave out R09, which reads every published byte.")
@click.option("--keep", type=click.Path(path_type=Path), help="Put the repository here, and leave it there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(models: int, weight_kib: int, no_digests: bool, keep: Path | None, as_json: bool) -> None:
    """Write the repository, lint it, print how long that took."""
    with _root(keep) as root:
        if not Repository(root).model_names():
            write_pipelines(root, models, weight_kib)
        options = LintOptions(cpus=8, gpu=False, latency_budget_ms=50, shm_bytes=1 << 30, digests=not no_digests)
        started, cpu = time.perf_counter(), time.process_time()
        report = check(root, options)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        by_rule = seconds_by_rule(root)
    found = sorted({f.rule for f in report.findings})
    if as_json:
        counts = {"models": report.models, "findings": len(report.findings)}
        print_json({"seconds": seconds, "cpu_seconds": cpu_seconds, **counts, "by_rule": by_rule})
        return
    console.print(
        f"{report.models} models linted in {seconds:.2f} s ({cpu_seconds:.2f} s of the CPU): "
        f"{len(report.findings)} findings by {', '.join(found)}"
    )
    slowest = sorted(by_rule.items(), key=lambda row: -row[1])[:8]
    print_table(["rule", "seconds"], [(rule, round(spent, 3)) for rule, spent in slowest], "the slowest rules")


if __name__ == "__main__":
    main()
