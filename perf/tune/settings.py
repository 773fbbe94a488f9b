"""What tune changes of a model's config.pbtxt, as frozen values, and the config that they stand for. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from conch.model_config import ModelConfig, ModelConfigMessage

# One request at a time, in a config whose dynamic_batching also says other things (a limit of the queue).
_ALONE = (1,)


@dataclass(frozen=True)
class Batching:
    """Triton's dynamic batcher: how long it waits for more, and the sizes that it rather sends off."""

    delay_microseconds: int = 0
    preferred: tuple[int, ...] = ()

    def __str__(self) -> str:
        delay = f"a delay of {self.delay_microseconds / 1000:g} ms" if self.delay_microseconds else "no delay"
        sizes = f", {' or '.join(map(str, self.preferred))} at a time" if self.preferred else ""
        return f"batching with {delay}{sizes}"


@dataclass(frozen=True)
class ModelTuning:
    """The settings of one model.

    ``threads`` are the graph's own an instance; 0 leaves the number to the runtime, which takes all cores. ``batching``
    None is none. ``pad_multiple`` rounds lengths of token ids up; 1 does not.
    """

    instances: int = 1
    threads: int = 0
    max_batch_size: int = 0
    batching: Batching | None = None
    pad_multiple: int = 1


@dataclass(frozen=True)
class Tuning:
    """The settings of a model and its members; ``version`` is the one that serves: a variant in another precision."""

    models: tuple[tuple[str, ModelTuning], ...]
    version: int = 0

    def of(self, model: str) -> ModelTuning:
        """The settings of one model."""
        return dict(self.models)[model]

    def having(self, model: str, tuned: ModelTuning) -> Tuning:
        """The same but for one model."""
        return dataclasses.replace(self, models=tuple((n, tuned if n == model else t) for n, t in self.models))


def read_tuning(config: ModelConfigMessage, thread_parameter: str = "", pad_parameter: str = "") -> ModelTuning:
    """The settings that a config has. What a parameter says that is no number counts as absent."""
    batching = None
    if config.HasField("dynamic_batching"):
        found = config.dynamic_batching
        batching = Batching(found.max_queue_delay_microseconds, tuple(found.preferred_batch_size))
        if batching.preferred == _ALONE:
            batching = None
    return ModelTuning(
        instances=sum(group.count or 1 for group in config.instance_group) or 1,
        threads=_number(config, thread_parameter, 0),
        max_batch_size=config.max_batch_size,
        batching=batching,
        pad_multiple=_number(config, pad_parameter, 1),
    )


def with_tuning(
    config: ModelConfigMessage, tuned: ModelTuning, thread_parameter: str = "", pad_parameter: str = ""
) -> ModelConfigMessage:
    """A copy of a config with these settings. Only what differs is touched; where models run is never changed."""
    before = read_tuning(config, thread_parameter, pad_parameter)
    copy = ModelConfig()
    copy.CopyFrom(config)
    if tuned.instances != before.instances:
        if not copy.instance_group:
            copy.instance_group.add()
        copy.instance_group[0].count = tuned.instances
    if thread_parameter and tuned.threads != before.threads:
        _write_number(copy, thread_parameter, tuned.threads, 0)
    if pad_parameter and tuned.pad_multiple != before.pad_multiple:
        _write_number(copy, pad_parameter, tuned.pad_multiple, 1)
    copy.max_batch_size = tuned.max_batch_size
    if tuned.batching != before.batching:
        _write_batching(copy, tuned.batching)
    return copy


def _write_batching(config: ModelConfigMessage, batching: Batching | None) -> None:
    dynamic = config.dynamic_batching
    dynamic.max_queue_delay_microseconds = 0
    del dynamic.preferred_batch_size[:]
    if batching is not None:
        dynamic.SetInParent()
        dynamic.max_queue_delay_microseconds = batching.delay_microseconds
        dynamic.preferred_batch_size.extend(batching.preferred)
    elif dynamic.ListFields():
        dynamic.preferred_batch_size.extend(_ALONE)
    else:
        config.ClearField("dynamic_batching")


def _number(config: ModelConfigMessage, parameter: str, default: int) -> int:
    if not parameter or parameter not in config.parameters:
        return default
    text = config.parameters[parameter].string_value
    return int(text) if text.isdecimal() else default


def _write_number(config: ModelConfigMessage, parameter: str, value: int, absent: int) -> None:
    if value == absent:
        del config.parameters[parameter]
    else:
        config.parameters[parameter].string_value = str(value)
