from __future__ import annotations

import pytest

from conch.errors import ConchError
from perf.analyzer import parse

# As perf_analyzer 2.51.0 wrote them.
CSV = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency,"
    "request/response,response wait\n"
    "4,103.371,4,14192,2,66,19723,904,2,9526,172981,184304,264451,6,34873\n"
)
LOG = """\
 Successfully read data for 1 stream/streams with 5 step/steps.
Request concurrency: 4
  Pass [1] throughput: 271.014 infer/sec. p99 latency: 168715 usec
  Pass [2] throughput: 25.9596 infer/sec. p99 latency: 184304 usec
  Pass [3] throughput: 14.9775 infer/sec. p99 latency: 271377 usec
    [WARNING] Perf Analyzer was not able to keep up with the desired request rate. 1.11% of the requests were delayed.
WARNING: Unable to parse 'nv_gpu_utilization' metric.
  Client:
    Request count: 188
    Throughput: 103.371 infer/sec
  Server:
    Inference count: 188
    Execution count: 188
    Successful request count: 188
    Avg request latency: 30744 usec (overhead 0 usec + queue 10407 usec + compute 20722 usec)

  Composing models:
  digits_model, version: 1
      Inference count: 188
      Execution count: 126
      Successful request count: 188
      Avg request latency: 25734 usec (overhead 3 usec + queue 8904 usec + compute input 15 usec + compute infer 16715 usec + compute output 96 usec)

  digits_preprocess, version: 1
      Inference count: 376
      Execution count: 117
      Successful request count: 376
      Avg request latency: 2612 usec (overhead 4 usec + queue 772 usec + compute input 26 usec + compute infer 1370 usec + compute output 440 usec)

Inferences/Second vs. Client p99 Batch Latency
"""  # noqa: E501
FAILED = """\
*** Measurement Settings ***
Request concurrency: 2
  Pass [1] cb::Error: No valid requests recorded within time interval. Please use a larger time window.
Failed to maintain requested inference load. Worker thread(s) failed to generate concurrent requests.
Thread [0] had error: it is bad

Thread [1] had error: it is bad

"""


def test_the_figures_of_a_load() -> None:
    found = parse.figures(CSV, LOG)
    assert found.inferences_per_second == 103.371
    assert found.latency_ms == pytest.approx(
        {"avg": 34.879, "p50": 9.526, "p90": 172.981, "p95": 184.304, "p99": 264.451}
    )
    assert found.requests == 188
    assert [w.inferences_per_second for w in found.windows] == [271.014, 25.9596, 14.9775]
    assert found.windows[0].latency_ms == pytest.approx(168.715)


def test_an_ensembles_times_are_the_sums_over_its_steps() -> None:
    found = parse.figures(CSV, LOG)
    # The second step ran twice for each request.
    due = {"queue": 8.904 + 2 * 0.772, "compute_input": 0.067, "compute_infer": 19.455, "compute_output": 0.976}
    assert found.server_ms == pytest.approx(due)
    assert found.average_batch == pytest.approx(188 / 126)


def test_windows_that_differ_in_either_are_not_steady() -> None:
    steady = parse.Window(100.0, 5.0)
    found = parse.Figures(1.0, {}, 1, (steady, parse.Window(110.0, 5.0), parse.Window(100.0, 6.0)), ())
    assert found.spread_percent == pytest.approx(20)


def test_a_log_that_tells_nothing_proves_nothing_steady() -> None:
    found = parse.figures(CSV, "")
    assert found.spread_percent == float("inf")
    assert (found.server_ms, found.average_batch, found.requests) == ({}, None, 0)


def test_warnings_are_kept_but_for_a_gpu_that_is_not_there() -> None:
    (warning,) = parse.figures(CSV, LOG).warnings
    assert "not able to keep up" in warning


@pytest.mark.parametrize(
    ("log", "due"),
    [
        (FAILED, "it is bad"),
        (FAILED.split("Failed to maintain")[0], "no request was done within a measurement window"),
        ("error: failed to get model metadata: nobody\n", "failed to get model metadata: nobody"),
        ("one\n\ntwo\n", "one\ntwo"),
        ("", "nothing was said"),
    ],
)
def test_the_reason_of_a_failure_is_told_once(log: str, due: str) -> None:
    assert parse.reason(log) == due


@pytest.mark.parametrize(
    "line",
    ["  Pass [1] throughput: 1714.47 infer/sec. Avg latency: 1080 usec (std 430 usec). ", LOG.splitlines()[2]],
)
def test_a_window_is_read_as_it_comes(line: str) -> None:
    assert parse.read_window(line) is not None
    assert parse.read_window("Request concurrency: 4") is None


@pytest.mark.parametrize("text", ["", "Concurrency\n1\n", CSV.replace("103.371", "much"), CSV + CSV.splitlines()[1]])
def test_a_report_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ConchError, match="report"):
        parse.figures(text, LOG)
