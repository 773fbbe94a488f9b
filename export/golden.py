"""Golden requests: a few small real inputs with the answers that the checked version gave to them.

They go into the manifest, to be asked again after a load.
"""

from __future__ import annotations

import numpy as np

from conch.manifest import Golden, tensor_to_json
from conch.tensor_spec import ModelSignature, TensorSpec, from_numpy_type
from export.source import Reference, Source, Tensors

# A manifest is read by people too.
MAX_ENTRIES = 1024
MAX_REQUESTS = 3


def model_golden(source: Source, run: Reference) -> tuple[Golden, ...]:
    """Golden requests of the model itself: the first row of its first samples, answered by the written file."""
    found = []
    for sample in source.samples[:MAX_REQUESTS]:
        one = {k: v[:1] for k, v in sample.items()} if source.signature.batched else dict(sample)
        golden = record(one, run(one), source.signature)
        if golden is not None:
            found.append(golden)
    return tuple(found)


def record(inputs: Tensors, outputs: Tensors, signature: ModelSignature) -> Golden | None:
    """One request and its answer as JSON; None when it is too large to be kept."""
    names = [spec.name for spec in signature.outputs if spec.name in outputs]
    answer = {name: outputs[name] for name in names}
    if not all(_is_small(array, spec) for spec in signature.inputs if (array := inputs.get(spec.name)) is not None):
        return None
    if sum(array.size for array in answer.values()) > MAX_ENTRIES:
        return None
    return Golden(
        inputs={name: tensor_to_json(array) for name, array in inputs.items()},
        outputs={name: tensor_to_json(array) for name, array in answer.items()},
    )


def _is_small(array: np.ndarray, spec: TensorSpec) -> bool:  # type: ignore[type-arg]
    """Few entries, and text rather than files: JSON holds no bytes that are not UTF-8."""
    if array.size > MAX_ENTRIES:
        return False
    if from_numpy_type(array.dtype).wire != "BYTES":
        return True
    for item in array.ravel().tolist():
        raw = item if isinstance(item, bytes) else str(item).encode()
        if len(raw) > MAX_ENTRIES:
            return False
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return False
    return True
