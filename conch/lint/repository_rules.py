"""Rules R00 to R09: what Triton makes of the files and folders themselves."""

from __future__ import annotations

from collections.abc import Iterator

from conch.lint.context import Context
from conch.lint.finding import Fault
from conch.lint.model import ModelFolder
from conch.lint.rules import rule


@rule("R00", "error", "a file that Triton needs cannot be read", needs_config=False)
def readable(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton does not load a model whose config.pbtxt does not parse, or whose file is missing or empty.

    Mend the line that is named, or bring the file back. The other rules go on with what can be read.
    """
    if model.error:
        yield Fault("the model's folder cannot be read", got=model.error, file=model.path)
    if model.config is None:
        yield Fault(
            "config.pbtxt does not parse",
            got=model.config_error,
            expected="protobuf text of Triton's ModelConfig",
            fix="mend the line named above; fields are listed in Triton's model_config.proto",
        )
