"""Triton model: `last_hidden_state` [-1, d] and `attention_mask` [-1] in, `embedding` FP32 [d] out.

See pool_embeddings_part.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from part_model import PartModel, read_settings
from pool_embeddings_part import Part


class TritonPythonModel(PartModel):
    """One a model instance."""

    def open_part(self, config: Mapping[str, Any], args: Mapping[str, str]) -> Part:
        """The part, with the settings of config.pbtxt. Raises: ValueError."""
        return Part(read_settings(config, args))
