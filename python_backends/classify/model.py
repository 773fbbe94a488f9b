"""Triton model: `logits` [classes] in, `label`, `score` and `scores` out. See classify_part.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classify_part import Part
from part_model import PartModel, read_settings


class TritonPythonModel(PartModel):
    """One a model instance."""

    def open_part(self, config: Mapping[str, Any], args: Mapping[str, str]) -> Part:
        """The part, with the settings of config.pbtxt. Raises: ValueError."""
        return Part(read_settings(config, args))
