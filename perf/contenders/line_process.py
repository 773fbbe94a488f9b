"""A process of ours that is told a JSON object a line, and answers each with one: it waits without taking anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from perf.contenders.processes import ROOT


class LineProcess:
    """``python -m MODULE``, with ``settings`` in CONCH_BENCH. It ends when its standard input does."""

    def __init__(self, module: str, settings: Mapping[str, Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CONCH_BENCH": json.dumps(settings)}
        self._module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for us, who then end it
        )

    def tell(self, command: Mapping[str, Any]) -> None:
        """Say a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The answer to what was said first and not yet heard. Raises: OSError when the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"{self._module} ended with {self.process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        """At once."""
        self.process.kill()
        self.process.wait()
