"""What a user can ask of any export, whatever its source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conch.errors import ExportError
from conch.releases import DEFAULT_TARGET, release

if TYPE_CHECKING:
    from conch.repository import Repository

FORMATS = ("onnx", "torchscript")
PRECISIONS = ("fp32", "fp16", "int8")
PIPELINES = ("auto", "ensemble", "single")


@dataclass(frozen=True)
class ExportOptions:
    """The options that the export commands share.

    ``max_batch_size`` 0 serves without batching. ``opset`` None takes the newest that the target loads. ``atol`` None
    takes the tolerance of the precision (see `export.parity`). ``calibration`` makes int8 static. ``max_queue`` is how
    many requests may wait for the model before more are refused; 0 refuses none. ``pipeline`` says how pre- and
    postprocessing, where the source has any, stand with the graph: see `with_form`. ``trial`` loads the staged version
    in a scratch Triton before it goes into the repository.
    """

    name: str
    repository: Path = Path("model_repository")
    format: str = "onnx"
    precision: str = "fp32"
    optimize: bool = False
    opset: int | None = None
    target: str = DEFAULT_TARGET
    max_batch_size: int = 32
    instances: int = 1
    max_queue: int = 0
    rules: Path | None = None
    samples: Path | None = None
    calibration: Path | None = None
    atol: float | None = None
    pipeline: str = "auto"
    trial: bool = True

    def check(self) -> None:
        """Raise ExportError or ConfigError for options that exclude each other, before any work is done."""
        limits = release(self.target)
        for option, value, known in (
            ("--format", self.format, FORMATS),
            ("--precision", self.precision, PRECISIONS),
            ("--pipeline", self.pipeline, PIPELINES),
        ):
            if value not in known:
                raise ExportError(
                    "an option has a value that export does not know",
                    got=f"{option} {value}",
                    expected=f"{option} {'|'.join(known)}",
                )
        if self.format == "torchscript" and (self.precision != "fp32" or self.optimize or self.opset is not None):
            raise ExportError(
                "--precision, --optimize and --opset work on ONNX graphs",
                got=f"--format torchscript --precision {self.precision}",
                fix="leave them out, or export with --format onnx",
            )
        if self.pipeline == "single" and self.format != "onnx":
            raise ExportError(
                "a pipeline of one model runs its graph in ONNX Runtime",
                got=f"--pipeline single --format {self.format}",
                fix="export with --format onnx, or with --pipeline ensemble",
            )
        if self.max_queue and self.instances < 2:
            raise ExportError(
                "a limited queue needs two instances: with one, Triton's batcher may sleep for 0.5 s between requests",
                got=f"--max-queue {self.max_queue} --instances {self.instances}",
                expected="--instances 2 or more",
                fix="add --instances 2, or leave --max-queue out",
            )
        if self.calibration is not None and self.precision != "int8":
            raise ExportError(
                "--calibration is for int8", got=f"--precision {self.precision}", fix="add --precision int8"
            )
        if self.opset is not None and self.opset > limits.max_opset:
            raise ExportError(
                f"opset {self.opset} is too new for Triton {self.target}",
                where="--opset",
                got=self.opset,
                expected=f"{limits.max_opset} or lower (ONNX Runtime {limits.onnxruntime})",
            )

    def with_form(self, repository: Repository) -> ExportOptions:
        """These options with ``pipeline`` decided: an ensemble of a model a part, or a single model.

        auto: what the repository has under this name already; else single for int8, which runs on CPUs alone, where
        every hop between processes costs. Anything else may meet a GPU, whose graph belongs in a native backend.
        """
        if self.pipeline != "auto":
            return self
        if self.name in repository.model_names():
            single = repository.config(self.name).backend == "python"
        else:
            single = self.precision == "int8"
        return dataclasses.replace(self, pipeline="single" if single else "ensemble")

    def settings(self) -> dict[str, Any]:
        """The options as JSON values, for the manifest; paths as they were given."""
        fields = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
