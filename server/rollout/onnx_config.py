"""The config.pbtxt that a bare ONNX file is served with: the live model's where it fits, else one from its header."""

from __future__ import annotations

from pathlib import Path

from conch.errors import ConfigError, RepositoryError
from conch.lint.onnx_header import OnnxHeader, OnnxTensor, read_header
from conch.model_config import (
    DynamicBatching,
    InstanceGroup,
    ModelConfig,
    ModelConfigMessage,
    ModelSettings,
    add_tensors,
    build_config,
    signature_of,
)
from conch.tensor_spec import ModelSignature, TensorSpec, from_onnx_type

# As export has it: what a user may send at once, when nobody said.
DEFAULT_MAX_BATCH_SIZE = 32


def config_for(name: str, path: Path, live: ModelConfigMessage | None) -> tuple[ModelConfigMessage, str]:
    """The config for an ONNX file, and where it comes from. Raises: OnnxHeaderError, RepositoryError.

    A live config whose tensors the file does not have keeps its settings, and gets the file's tensors.
    """
    header = read_header(path)
    if live is not None and live.backend == "onnxruntime":
        if fits(header, signature_of(live)):
            return live, "the live model's config"
        signature = signature_from(header, path, live.max_batch_size or DEFAULT_MAX_BATCH_SIZE)
        config = ModelConfig()
        config.CopyFrom(live)
        for field in ("input", "output"):
            config.ClearField(field)
        config.max_batch_size = signature.max_batch_size
        if signature.max_batch_size < 2:
            config.ClearField("dynamic_batching")
        add_tensors(config, signature)
        return config, "the live model's config, with the ONNX file's tensors, which differ"
    signature = signature_from(header, path, DEFAULT_MAX_BATCH_SIZE)
    batching = DynamicBatching() if signature.max_batch_size > 1 else None
    settings = ModelSettings("onnxruntime", instance_groups=(InstanceGroup(1, "KIND_AUTO"),), dynamic_batching=batching)
    return build_config(name, signature, settings), "the ONNX file's header"


def signature_from(header: OnnxHeader, path: Path, max_batch_size: int) -> ModelSignature:
    """The signature that a header stands for; batches are allowed where each tensor's first size is open.

    Raises: RepositoryError, SignatureError.
    """
    tensors = [_checked(t, path) for t in (*header.inputs, *header.outputs)]
    batched = all(dims and not isinstance(dims[0], int) for dims in tensors)
    inputs = tuple(_spec(t, batched=batched) for t in header.inputs)
    outputs = tuple(_spec(t, batched=batched) for t in header.outputs)
    return ModelSignature(inputs, outputs, max_batch_size if batched else 0)


def fits(header: OnnxHeader, signature: ModelSignature) -> bool:
    """Whether a file has the tensors of a signature: each input of either, names, types and sizes."""
    inputs = {t.name: t for t in header.inputs}
    outputs = {t.name: t for t in header.outputs}
    if {spec.name for spec in signature.inputs} != inputs.keys():
        return False
    if not all(spec.name in outputs for spec in signature.outputs):
        return False
    pairs = [(spec, inputs[spec.name]) for spec in signature.inputs]
    pairs += [(spec, outputs[spec.name]) for spec in signature.outputs]
    return all(_agree(spec, tensor, batched=signature.batched) for spec, tensor in pairs)


def external_files(path: Path) -> dict[str, Path]:
    """The files that an ONNX file keeps its weights in, by their path from its folder. Raises: RepositoryError."""
    names = sorted({i.external for i in read_header(path).initializers if i.external is not None})
    found = {}
    for name in names:
        beside = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not beside.is_file():
            raise RepositoryError(
                "the ONNX file keeps weights in a file that is not there",
                where=path,
                got=name or "no name",
                expected="a file beside it",
                fix="save the model with its external data in the same folder",
            )
        found[name] = beside
    return found


def _checked(tensor: OnnxTensor, path: Path) -> tuple[int | str | None, ...]:
    if tensor.kind != "tensor" or tensor.dims is None:
        raise ConfigError(
            f"tensor {tensor.name} of the ONNX file is nothing that Triton can serve by itself",
            where=path,
            got=tensor.kind if tensor.kind != "tensor" else "a tensor of unknown rank",
            expected="a tensor with a known number of dimensions",
            fix="export it anew (scikit-learn: zipmap off), or say how it is served with --config FILE",
        )
    return tensor.dims


def _spec(tensor: OnnxTensor, *, batched: bool) -> TensorSpec:
    dims = (tensor.dims or ())[1 if batched else 0 :]
    sizes = tuple(d if isinstance(d, int) and d > 0 else -1 for d in dims)
    return TensorSpec(tensor.name, from_onnx_type(tensor.elem_type).wire, sizes)


def _agree(spec: TensorSpec, tensor: OnnxTensor, *, batched: bool) -> bool:
    if tensor.kind != "tensor" or tensor.dims is None or from_onnx_type(tensor.elem_type).wire != spec.datatype:
        return False
    due = spec.shape(batched=batched)
    if batched and (not tensor.dims or isinstance(tensor.dims[0], int)):
        return False  # the export froze the batch
    sizes = [d if isinstance(d, int) and d > 0 else -1 for d in tensor.dims]
    return len(sizes) == len(due) and all(-1 in (d, s) or d == s for d, s in zip(due, sizes, strict=True))
