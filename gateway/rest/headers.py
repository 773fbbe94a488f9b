"""Headers of answers."""

from __future__ import annotations

from urllib.parse import quote


def answered_by(model: str, version: str) -> dict[str, str]:
    """Who answered; a model's name may hold what headers cannot, and is then written as in a URL."""
    return {"X-Model-Name": quote(model, safe="@ "), "X-Model-Version": version}
