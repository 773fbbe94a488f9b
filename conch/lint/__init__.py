"""Rules for a model repository, decided offline: no server, no GPU, nothing loaded but the head of an ONNX file.

A rule is a function in its family's file (`repository_rules`, `tensor_rules`, ...); `rules` enters it in the table,
`model` is what it looks at, `check` asks all of them, `fix` applies what they propose.
"""

from conch.lint.check import Report, Silenced, check
from conch.lint.finding import Finding
from conch.lint.options import LintOptions, Off, off

__all__ = ["Finding", "LintOptions", "Off", "Report", "Silenced", "check", "off"]
