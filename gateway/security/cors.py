"""Which pages in browsers may call the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What a page may read of an answer beside its body.
_EXPOSED = (
    "X-Request-Id",
    "Retry-After",
    *(f"X-RateLimit-{word}-{kind}" for kind in ("Requests", "Tokens") for word in ("Limit", "Remaining", "Reset")),
)


def cors_options(origins: Sequence[str]) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware.

    Keys travel in a header that a page must set itself: cookies are never needed, so credentials stay forbidden.
    """
    return {
        "allow_origins": tuple(origins),
        "allow_methods": ("GET", "POST"),
        "allow_headers": ("*",),
        "expose_headers": _EXPOSED,
        "max_age": 600,
    }
