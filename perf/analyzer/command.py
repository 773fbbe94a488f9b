"""A load as the arguments of perf_analyzer 2.51. Pure."""

from __future__ import annotations

from pathlib import Path

from clients.address import parse_address
from conch.errors import ConchError
from perf.points import Load

# perf_analyzer calls a load stable when three windows in a row agree, and says nothing at all of one that is not. So it
# is told that anything is stable, and measures three windows a call: see measure.py, which judges them.
WINDOWS = 3
ANYTHING_PERCENT = 1_000_000
# Above, a thread for each request in flight would compete with the server.
MOST_THREADS = 64


def arguments(load: Load, url: str, inputs: Path, csv: Path) -> list[str]:
    """What to call perf_analyzer with, for three windows of a load. Raises: ConchError when the URL does not fit."""
    address = parse_address(url)
    if address.is_grpc != (load.protocol == "grpc"):
        raise ConchError(
            f"a load over {load.protocol} needs an address of that kind",
            got=url,
            expected=f"{load.protocol}://HOST:PORT",
            fix="give --url of the other protocol, or choose --protocol",
        )
    # An HTTP address has its scheme only where that is https.
    target = str(address) if address.scheme == "https" else address.target
    found = ["-m", load.model, "-u", target, "-i", load.protocol]
    if load.version:
        found += ["-x", load.version]
    if address.is_secure and address.is_grpc:
        found += ["--ssl-grpc-use-ssl", "true"]
    found += ["-b", str(load.batch_size), "--input-data", str(inputs), "--shared-memory", load.shared_memory]
    if load.concurrency is not None:
        found += ["--concurrency-range", str(load.concurrency)]
        if load.streaming or load.concurrency > MOST_THREADS:
            found += ["--async"]
    else:
        # With synchronous calls no more requests than threads are in flight, and the loop would not be open.
        found += ["--request-rate-range", f"{load.request_rate_per_second:g}"]
        found += ["--request-distribution", load.arrivals, "--async"]
    if load.streaming:
        found += ["--streaming"]
    found += ["--measurement-interval", str(load.window_ms), "--percentile", str(load.percentile)]
    found += ["--stability-percentage", str(ANYTHING_PERCENT), "--max-trials", str(WINDOWS)]
    return [*found, "-f", str(csv), "--verbose-csv", "-v"]
