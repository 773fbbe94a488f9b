"""Which models answer an equal question equally. Pure."""

from __future__ import annotations

from gateway.catalogue import ServedModel


def may_cache(served: ServedModel) -> bool:
    """Whether an answer may stand for the next one.

    Not where text is sampled, answers come in streams, or requests belong to a sequence; nor where the model's own
    config says ``parameters { key: "deterministic" value { string_value: "false" } }``.
    """
    return (
        served.kind != "generate"
        and not served.decoupled
        and "sequence_batching" not in served.config
        and served.parameters.get("deterministic", "true") != "false"
    )
