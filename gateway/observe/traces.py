"""W3C trace context: what a caller sent is passed on to Triton, whose spans then join the caller's trace.

The gateway makes no spans of its own and starts no traces: Triton traces every request that carries a context,
whatever its sampling rate, so only callers who record their trace (the flag ``sampled``) are passed on.

Source: https://www.w3.org/TR/trace-context/ and
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/trace.md (context propagation)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.request_info import RequestInfo

# version, trace id, parent id, flags; later versions may append more.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 0x01
_LONGEST_STATE = 512  # what every vendor must pass on


def trace_headers(info: RequestInfo) -> Mapping[str, str]:
    """The headers, or gRPC metadata, of a request to Triton; empty for a request that is not traced."""
    if not info.traceparent:
        return {}
    found = _TRACEPARENT.fullmatch(info.traceparent)
    if found is None or not int(found[2], 16) & _SAMPLED:
        return {}
    state = info.tracestate
    if not state or len(state) > _LONGEST_STATE or not state.isascii() or not state.isprintable():
        return {"traceparent": info.traceparent}
    return {"traceparent": info.traceparent, "tracestate": state}


def trace_id(traceparent: str) -> str:
    """The id under which a trace is found, 32 hexadecimal digits; empty where there is none."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1] if found else ""
