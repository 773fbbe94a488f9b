"""What each Triton release can load: its ONNX Runtime, and the newest ONNX IR and opset that this accepts.

Sources: the release notes of NVIDIA's images (https://docs.nvidia.com/deeplearning/triton-inference-server/release-notes/)
and ONNX Runtime's table https://onnxruntime.ai/docs/reference/compatibility.html
"""

from __future__ import annotations

from dataclasses import dataclass

from conch.errors import ConfigError, nearest


@dataclass(frozen=True)
class Release:
    """One NGC release: the image's tag, tritonserver's version, and the limits of its ONNX Runtime."""

    tag: str
    server_version: str
    onnxruntime: str
    max_ir_version: int
    max_opset: int


RELEASES = (
    Release("24.08", "2.49.0", "1.18.1", 10, 21),
    Release("24.10", "2.51.0", "1.19.2", 10, 21),
)

DEFAULT_TARGET = "24.10"


def release(tag: str) -> Release:
    """The release of an image tag, e.g. "24.10". Raises: ConfigError."""
    known = {r.tag: r for r in RELEASES}
    if tag not in known:
        close = nearest(tag, known)
        raise ConfigError(
            f"release {tag} is not in the table of Triton releases",
            got=tag,
            expected=", ".join(known),
            fix=f"did you mean {close}?" if close else "add it to conch/releases.py from its release notes",
        )
    return known[tag]
