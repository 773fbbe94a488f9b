from __future__ import annotations

import pytest

from gateway.observe.traces import trace_headers, trace_id
from gateway.request_info import RequestInfo

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def headers(traceparent: str, tracestate: str = "") -> dict[str, str]:
    return dict(trace_headers(RequestInfo("id", "/", 0.0, 1.0, traceparent=traceparent, tracestate=tracestate)))


def test_passes_a_sampled_trace_on_unchanged() -> None:
    assert headers(GOOD, "vendor=1") == {"traceparent": GOOD, "tracestate": "vendor=1"}
    assert headers(GOOD) == {"traceparent": GOOD}
    assert trace_id(GOOD) == TRACE


def test_takes_a_later_version_with_more_fields() -> None:
    later = f"cc-{TRACE}-{SPAN}-01-what-the-future-holds"
    assert headers(later) == {"traceparent": later}


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",  # not sampled: the caller keeps no trace to join
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        GOOD + "\r\nx: y",
    ],
)
def test_passes_nothing_else_on(traceparent: str) -> None:
    assert headers(traceparent, "vendor=1") == {}


@pytest.mark.parametrize("state", ["a=1\r\nx: y", "a=é", "a=" + "1" * 600])
def test_leaves_a_state_out_that_would_break_a_header(state: str) -> None:
    assert headers(GOOD, state) == {"traceparent": GOOD}
