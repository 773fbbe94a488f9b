"""Numbers as JSON, from arrays: orjson writes the fewest digits that tell each from its neighbours, at C's speed."""

from __future__ import annotations

import numpy as np
import orjson

from conch.tensor_spec import Array


def numbers(array: Array) -> list[str]:
    """Each row of an array [rows, ...] as JSON: a number, or nested lists. NaN and infinities are null."""
    rows = np.ascontiguousarray(array)
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in rows]
