"""Why models did not load, and what to do: read from Triton's repository index and its log. Pure.

The texts are those of tritonserver 2.51.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from conch.errors import ModelLoadError
from server.http_api import ModelState

LOG_TAIL_LINES = 15
PORT_TAKEN = re.compile(r"already in use|failed to start (?:HTTP|GRPC|Metrics) service", re.IGNORECASE)

_LOG_LINE = re.compile(r'^(?:\S+Z [EWIV]|[EWIV]\d{4} \S+) \d+ \S+\] ?"?(.*?)"?$')
_PROTOBUF = re.compile(r"^\[libprotobuf ERROR [^]]*\] Error parsing text-format \S+: (.*)$")
_DEPENDS = re.compile(r"ensemble '([^']+)' depends on '([^']+)' which has no loaded version")
_USAGE = "Usage: tritonserver [options]"
_STAND_IN = "LoadFailed: "  # what server/embedded_backends raise
_NOT_GIVEN = "the server gives no reason: is it in the repository?"

# (what the reason looks like, what to do), the first that matches counts.
_ADVICE = (
    (r"; fix: (.+)$", "{}"),
    (r"^depends on ([^,]+), which did not load", "see {}"),
    (r"No module named '([^']+)'", "install the package of {} into the environment that serves"),
    (r"SyntaxError|At: ", "mend the model's Python code, at the place named above"),
    (r"[Uu]nsupported model IR version", "the graph is newer than this Triton: export it again with an older --target"),
    (r"config\.pbtxt: \d+:\d+", "mend the model's config.pbtxt at that line and column"),
    (r"unable to find backend library for backend '([^']+)'", "the server has no backend named {}"),
    (r"must have version|no version|at least one version", "export a version of it: NAME/1/ must be there"),
    (r"Could not determine backend|failed to poll", "NAME/config.pbtxt and NAME/1/ must be there: export it again"),
    (r"unable to find|failed to open|No such file|failed to stat", "the version folder lacks a file: export it again"),
    (r"configuration|config|'name'", "mend the model's config.pbtxt"),
)


def tail(log: str, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, without blank ones and without tritonserver's page of options, indented."""
    kept = [line for line in log.splitlines() if line.strip()]
    if _USAGE in kept:
        # It follows the complaint about an unknown flag, and precedes the one about a wrong value.
        end = max(index for index, line in enumerate(kept) if line.startswith("\t"))
        kept[kept.index(_USAGE) : end + 1] = []
    return "\n".join(f"    {line}" for line in kept[-lines:])


def tidy(reason: str) -> str:
    """A reason as a person would tell it: one line, with the innermost place in the user's own code."""
    depends = _DEPENDS.search(reason)
    if depends:
        return f"depends on {depends.group(2)}, which did not load"
    lines = [x.strip() for x in reason.replace("\\n", "\n").splitlines()]
    lines = [x for x in lines if x and "<frozen importlib" not in x]
    if _STAND_IN in reason and "At:" in lines:
        # Our own backends' refusal says it all, got, expected and fix included; the place in their code says nothing.
        told = [re.sub(r"^(got|expected|fix): +", r"\1: ", x) for x in lines[: lines.index("At:")]]
        return "; ".join(told).partition(_STAND_IN)[2]
    return re.sub(r"^(?:Internal|Invalid argument|Unavailable|Not found): ", "", " ".join(lines))


def reason_in_log(name: str, log: str) -> str:
    """What the log says of a model that the index gives no reason for, on one line."""
    about = re.compile(rf"(?:model directory|ensemble|for model|to load|model) '{re.escape(name)}'")
    found, syntax = "", ""
    for line in log.splitlines():
        protobuf = _PROTOBUF.match(line)
        if protobuf:
            syntax = protobuf.group(1)
            continue
        told = _LOG_LINE.match(line)
        if told and " I " not in line[:24] and about.search(told.group(1)):
            found = told.group(1)
            if "failed to read text proto" in found and syntax:
                found = f"config.pbtxt: {syntax}"
        syntax = ""
    return tidy(re.sub(r"^Poll failed for model directory '[^']*': ", "", found)) or _NOT_GIVEN


def load_error(failed: Sequence[ModelState]) -> ModelLoadError:
    """The error that names each model that failed, and why; what others depend on comes first."""
    names = list(dict.fromkeys(r.name for r in failed))
    reasons = "".join(f"\n    {r.name}{f' version {r.version}' if r.version else ''}: {r.reason}" for r in failed)
    what = f"model {names[0]} did not load" if len(names) == 1 else "these models did not load: " + ", ".join(names)
    fix = advice(failed[0]) if len(names) == 1 else f"{names[0]}: {advice(failed[0])}"
    return ModelLoadError(what, got=reasons, fix=fix)


def advice(failed: ModelState) -> str:
    """What to do about a model that did not load."""
    for pattern, text in _ADVICE:
        found = re.search(pattern, failed.reason)
        if found:
            return text.format(*found.groups())
    return f"mend {failed.name}, or serve the others without it: `conch serve` does"
