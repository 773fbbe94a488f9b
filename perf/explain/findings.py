"""What could be better, and the setting to change: each rule a small function over what is known. Pure.

A rule that does not apply yields nothing. It names its evidence with figures, since what is right for one target is
wrong for another; and a gain is bounded from above by the time that the finding concerns (``at_stake_ms``), by which
findings are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perf.explain.batching_rules import delay_costs, does_not_batch, padding_waste, shapes_differ
from perf.explain.evidence import Evidence
from perf.explain.finding import Finding
from perf.explain.time_rules import (
    bottleneck,
    cache_never_hits,
    failed_requests,
    hops_cost_more,
    outside_the_server,
    oversubscribed,
    queue_dominates,
)

Rule = Callable[[Evidence], Iterator[Finding]]


RULES: tuple[Rule, ...] = (
    failed_requests,
    does_not_batch,
    shapes_differ,
    padding_waste,
    oversubscribed,
    cache_never_hits,
    queue_dominates,
    delay_costs,
    bottleneck,
    hops_cost_more,
    outside_the_server,
)


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """All rules' findings: failures first, then those that most time depends on."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda f: (f.rule != "failed-requests", -f.at_stake_ms)))
