"""A loaded model, as every `from_X` hands it on: what the later steps need, and nothing of where it came from.

Arrays carry a leading batch dimension throughout (where max_batch_size > 0); names are the ones that the served model
will have. `Source.write` for a torch module is `export.to_onnx.write_torch` or `export.to_torchscript.write_torch`:
both take (module, example, signature, path, options), and call the module by the signature's input names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conch.tensor_spec import Array, ModelSignature, TensorSpec
from export.options import ExportOptions

Tensors = Mapping[str, Array]

# The source's own answer to batched inputs, from the framework that trained it. An entry None among STRING ones is one
# that rounding decides: any will do.
Reference = Callable[[Tensors], dict[str, Array]]

# Writes the model at full precision into a file: (path, options). Raises: ExportError.
Writer = Callable[[Path, ExportOptions], None]


@dataclass(frozen=True)
class PythonPart:
    """A member of a pipeline that runs in Triton's Python backend.

    ``role`` ends the model's name: NAME_preprocess, NAME_postprocess. ``backend`` names the folder of python_backends/
    that is copied into the version folder; ``assets`` maps further file names there to their bytes or to files to
    copy. ``packages`` are pip requirements that replace those of the same name in the backend's requirements.txt,
    where an asset needs more.
    """

    role: str
    backend: str
    signature: ModelSignature
    parameters: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[str, bytes | Path] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    input_map: Mapping[str, str] = field(default_factory=dict)
    output_map: Mapping[str, str] = field(default_factory=dict)
    instances: int = 1


@dataclass(frozen=True)
class PipelineParts:
    """What stands around the model in its ensemble, and how the whole is to answer.

    ``requests`` are real public inputs, each a batch of 1 (STRING tensors as object arrays of ``str`` or ``bytes``);
    ``reference`` is the source framework's own end-to-end answer to one of them, for the public outputs that it can
    give (an output it leaves out is not compared), or None where the source has no such thing.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    requests: Sequence[Tensors]
    preprocess: PythonPart | None = None
    postprocess: PythonPart | None = None
    model_input_map: Mapping[str, str] = field(default_factory=dict)
    model_output_map: Mapping[str, str] = field(default_factory=dict)
    reference: Reference | None = None


@dataclass(frozen=True)
class Source:
    """A model ready to be converted, checked and written.

    ``signature`` is the model's own (without pre- and postprocessing), its max_batch_size as the options ask.
    ``samples`` are real inputs of the model, batched; where a dimension is variable they differ in it.
    ``provenance`` goes into the manifest: kind, path or id, framework versions.
    ``tolerances`` are absolute, by precision, where this kind of model has others than `export.parity` gives.
    ``parameters`` are the served model's backend parameters beside those that the options decide. ``infer_arguments``
    follow `conch infer NAME` in the report, e.g. ``--text "good morning"``, where the inputs do
    not tell; ``notes`` are shown there too. ``dynamic_batching`` False leaves requests apart, where merging them costs
    more than it saves, or changes the answers.
    ``files`` go into the model's own version folder beside its weights, by name: bytes, or files to copy.
    ``read_samples`` reads a user's data file (--calibration) as inputs of the model; None takes `export.read_samples`.
    """

    provenance: Mapping[str, Any]
    signature: ModelSignature
    reference: Reference
    samples: Sequence[Tensors]
    write: Writer
    pipeline: PipelineParts | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    infer_arguments: str = ""
    notes: tuple[str, ...] = ()
    read_samples: Callable[[Path], Sequence[Tensors]] | None = None
    dynamic_batching: bool = True
