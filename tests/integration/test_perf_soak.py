"""Updates leave nothing behind on a real server: no process of a model that went, no shared memory, no open file."""

from __future__ import annotations

import pytest

from perf.soak import TINY_KINDS, updated

# What a single model and a pipeline of three parts run.
PROCESSES = {"single": 1, "pipeline": 3}


@pytest.mark.integration
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_nothing_stays_behind_after_updates(kind: str) -> None:
    found = updated(kind, 3)
    assert (found.first.processes, found.last.processes) == (PROCESSES[kind], PROCESSES[kind])
    assert found.last.regions == PROCESSES[kind]
    assert found.last.descriptors <= found.first.descriptors
