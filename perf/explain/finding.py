"""What a rule says, and from where on something is worth saying."""

from __future__ import annotations

from dataclasses import dataclass

from perf.explain.evidence import StepEvidence

# Fewer requests than this say nothing of batches or caches.
FEW = 20
# From this average on, requests do merge.
MERGES = 1.2
# A share of the latency from which a part is worth a word.
NOTABLE = 0.1
DOMINATES = 0.4


@dataclass(frozen=True)
class Finding:
    """``rule`` is its name, ``step`` the model ("" for the whole), ``change`` the setting and where it is."""

    rule: str
    step: str
    what: str
    evidence: str
    change: str
    at_stake_ms: float = 0.0


def where(s: StepEvidence, setting: str) -> str:
    """A setting and the file that it goes into."""
    return f"{setting} in the config.pbtxt of {s.model}"
