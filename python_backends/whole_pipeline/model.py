"""Triton model: a whole pipeline, as pipeline.json puts it together. See whole_pipeline_part.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from part_model import PartModel
from whole_pipeline_part import WholePipeline


class TritonPythonModel(PartModel):
    """One a model instance."""

    def open_part(self, config: Mapping[str, Any], args: Mapping[str, str]) -> WholePipeline:
        """All parts, loaded. Raises: ValueError, LoadFailed."""
        pipeline = WholePipeline(
            config,
            Path(args["model_repository"], args["model_version"]),
            gpu=args["model_instance_kind"] == "GPU",
            device_id=int(args["model_instance_device_id"]),
        )
        for note in pipeline.notes:
            pb_utils.Logger.log_warn(f"{args['model_name']}: {note}")
        return pipeline
