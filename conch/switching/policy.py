"""Which versions a config serves, and configs that differ in that alone. Pure.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto (ModelVersionPolicy)
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import text_format

from conch.errors import ConfigError
from conch.model_config import ModelConfig, ModelConfigMessage


def same_but_policy(one: ModelConfigMessage, other: ModelConfigMessage) -> bool:
    """Whether two configs say the same, whichever versions they serve: such a change reloads nothing."""
    return bool(_without_policy(one) == _without_policy(other))


def with_versions(config: ModelConfigMessage, versions: Sequence[int]) -> ModelConfigMessage:
    """The config, serving just these versions: versions that come meanwhile are left alone."""
    pinned = _without_policy(config)
    pinned.version_policy.specific.versions.extend(sorted(versions))
    return pinned


def with_latest(config: ModelConfigMessage, count: int) -> ModelConfigMessage:
    """The config, serving its ``count`` highest versions."""
    copy = _without_policy(config)
    copy.version_policy.latest.num_versions = count
    return copy


def with_policy_text(config: ModelConfigMessage, policy: str) -> ModelConfigMessage:
    """The config with a policy as `policy_text` gives it; "" is none. Raises: ConfigError."""
    copy = _without_policy(config)
    if policy:
        try:
            text_format.Parse(policy, copy)
        except text_format.ParseError as error:
            raise ConfigError("that is no version policy", got=policy, expected=str(error)) from error
    return copy


def policy_text(config: ModelConfigMessage) -> str:
    """A config's version_policy as protobuf text on one line; "" when it has none."""
    if not config.HasField("version_policy"):
        return ""
    alone = ModelConfig()
    alone.version_policy.CopyFrom(config.version_policy)
    return str(text_format.MessageToString(alone, as_one_line=True)).strip()


def policy_key(config: ModelConfigMessage) -> tuple[str, tuple[int, ...]]:
    """What a policy comes to: Triton writes the default out in what it serves, a file leaves it out."""
    policy = config.version_policy
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "specific":
        return "specific", tuple(sorted(policy.specific.versions))
    if chosen == "all" or (chosen is None and config.HasField("version_policy")):
        return "all", ()
    return "latest", (policy.latest.num_versions if chosen == "latest" else 1,)


def _without_policy(config: ModelConfigMessage) -> ModelConfigMessage:
    copy = ModelConfig()
    copy.CopyFrom(config)
    copy.ClearField("version_policy")
    return copy
