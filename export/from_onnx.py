"""An ONNX file, with its external data, as a Source: its own answers at full precision are the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import ConchError, ExportError
from conch.manifest import sha256
from conch.releases import Release, release
from conch.tensor_spec import Array, ModelSignature, TensorSpec, from_onnx_type
from export import read_samples
from export.check_graph import check_versions, default_opset, read_onnx
from export.options import ExportOptions
from export.quiet import quiet
from export.run_file import open_onnx
from export.source import Source, Tensors

# What made-up samples have where a dimension is variable; two, so that both are tried.
LENGTHS = (4, 7)


def load(path: Path, options: ExportOptions) -> Source:
    """A Source from FILE.onnx. Raises: ExportError when it is none, or too new for the target."""
    if options.format != "onnx":
        raise ExportError(
            "an ONNX file is exported as ONNX", got=f"--format {options.format}", fix="leave --format out"
        )
    model = read_onnx(path)
    target = release(options.target)
    if options.opset is None:
        check_versions(model, target, path)
    beside = external_files(model, path)
    signature = read_signature(model, options.max_batch_size)
    notes: tuple[str, ...] = ()
    if options.samples is not None:
        samples = read_samples.fit(read_samples.read(options.samples), signature, options.samples)
    else:
        samples = make_samples(signature)
        notes = ("the inputs compared were made up from the shapes; pass real ones with --samples",)

    def write(file: Path, chosen: ExportOptions) -> None:
        if chosen.opset is not None and chosen.opset != default_opset(model):
            convert_opset(path, file, chosen.opset, target)
            return
        shutil.copyfile(path, file)
        for name in beside:
            (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / name, file.parent / name)

    return Source(
        provenance={
            "kind": "onnx",
            "path": str(path),
            "sha256": sha256(path),
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            **({"external_data": {name: sha256(path.parent / name) for name in beside}} if beside else {}),
        },
        signature=signature,
        reference=_lazily(path),
        samples=samples,
        write=write,
        notes=notes,
    )


def _lazily(path: Path) -> Callable[[Tensors], dict[str, Array]]:
    """Runs the file; opened when it is first asked, after the checks that name what is wrong with it."""
    opened: list[Callable[[Tensors], dict[str, Array]]] = []

    def run(tensors: Tensors) -> dict[str, Array]:
        if not opened:
            opened.append(open_onnx(path))
        return opened[0](tensors)

    return run


def external_files(model: Any, path: Path) -> list[str]:
    """The names of the files with the model's external data, relative to it. Raises: ExportError for a missing one."""
    found = []
    for tensor in _tensors(model.graph):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
        if location is None or location in found:
            continue
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise ExportError(
                "the model's external data lies outside its folder",
                where=path,
                got=location,
                expected="a path relative to the model, below it",
                fix="save it again with onnx.save(..., save_as_external_data=True)",
            )
        if not (path.parent / location).is_file():
            raise ExportError(
                "the model's external data is missing",
                where=path.parent / location,
                fix="put that file beside the model",
            )
        found.append(location)
    return found


def _tensors(graph: Any) -> list[Any]:
    """Every stored tensor of a graph: its weights, and the constants in its nodes and their subgraphs."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                found.append(attribute.t)
            if attribute.HasField("g"):
                found.extend(_tensors(attribute.g))
    return found


def read_signature(model: Any, max_batch_size: int) -> ModelSignature:
    """The signature that a graph declares. Raises: ExportError for what Triton cannot serve."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return ModelSignature(
        tuple(_spec(value, "input", batched=max_batch_size > 0) for value in inputs),
        tuple(_spec(value, "output", batched=max_batch_size > 0) for value in model.graph.output),
        max_batch_size,
    )


def _spec(value: Any, kind: str, *, batched: bool) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise ExportError(
            f"{kind} {value.name} is no tensor",
            got=value.type.WhichOneof("value"),
            expected="tensors: Triton carries nothing else",
            fix="for scikit-learn, convert with options={'zipmap': False}, or use `conch export sklearn`",
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ExportError(
            f"the graph does not say the shape of {kind} {value.name}", fix="export it again with shape inference"
        )
    dims = [d.dim_value if d.dim_value > 0 else -1 for d in tensor.shape.dim]
    if batched and not dims:
        raise ExportError(
            f"{kind} {value.name} has no batch dimension", got="a single number", fix="pass --max-batch-size 0"
        )
    try:
        return TensorSpec(value.name, from_onnx_type(tensor.elem_type).wire, tuple(dims[1:] if batched else dims))
    except ConchError as error:
        raise ExportError(error.what, where=value.name, got=error.got, expected=error.expected) from error


def make_samples(signature: ModelSignature) -> list[dict[str, Array]]:
    """Inputs made up from shapes: normal numbers, integers 0 and 1 (a valid index of any table), the text "a"."""
    variable = any(-1 in spec.dims for spec in signature.inputs)
    generator = np.random.default_rng(0)
    rows = min(4, signature.max_batch_size)
    return [
        {
            spec.name: _made_up(
                spec, ([rows] if signature.batched else []) + [length if d == -1 else d for d in spec.dims], generator
            )
            for spec in signature.inputs
        }
        for length in (LENGTHS if variable else LENGTHS[:1])
    ]


def _made_up(spec: TensorSpec, shape: Sequence[int], generator: np.random.Generator) -> Array:
    if spec.datatype == "BYTES":
        return np.full(shape, "a", dtype=object)
    if spec.numpy.kind in "iub":
        return generator.integers(0, 2, shape).astype(spec.numpy)
    return generator.normal(size=shape).astype(spec.numpy)


def convert_opset(path: Path, file: Path, opset: int, target: Release) -> None:
    """Write a file at another opset, with the IR version that the target loads. Raises: ExportError."""
    import onnx
    from onnx import helper, version_converter

    try:
        with quiet():
            converted = version_converter.convert_version(onnx.load(str(path)), opset)
    except Exception as error:  # onnx raises RuntimeError and its own
        raise ExportError(
            f"onnx cannot convert the model to opset {opset}",
            where=path,
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            fix="export it from its framework at that opset",
        ) from error
    lowest = helper.find_min_ir_version_for(list(converted.opset_import))
    converted.ir_version = max(lowest, min(converted.ir_version, target.max_ir_version))
    onnx.save(converted, str(file))
