"""Whatever lies in a repository, the linter answers with findings: no exception, no endless work, nothing changed.

Each repository is then mended, as by --fix, and linted again: what could be mended is, or it says why it is not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conch.lint import LintOptions, Report, check
from conch.lint.fix import fix
from conch.model_config import ModelConfig
from tests.fakes.documented_repositories import REPOSITORIES
from tests.fakes.lint_repositories import PYTHON_MODEL, onnx, write

# Everything that a rule may ask for is said, so that every rule is asked.
OPTIONS = LintOptions(cpus=2, gpu=False, latency_budget_ms=10.0, shm_bytes=1 << 20)
BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

VALID = onnx()
CONFIGS = sorted(
    {
        content
        for repository in REPOSITORIES.values()
        for path, content in repository.items()
        if path.endswith("config.pbtxt") and isinstance(content, str)
    }
)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of its own for each example."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "repository"


def lint(files: Mapping[str, bytes | str | None]) -> Report:
    """Lint these files, then mend what can be; returns what was found first."""
    with scratch() as root:
        root.mkdir()
        write(root, files)
        return lint_and_mend(root)


def lint_and_mend(root: Path) -> Report:
    """What is wrong must come out as findings that can be printed; what can be mended must be mended afterwards."""
    before = listing(root)
    report = check(root, OPTIONS)
    assert listing(root) == before
    for finding in report.findings:
        assert finding.message
        "".join((finding.model, finding.file, finding.place, finding.got, finding.expected, finding.fix)).encode()
    mended = fix(root, OPTIONS)
    failed = {(n.finding.rule, n.finding.model) for n in mended.not_mended}
    left = {(f.rule, f.model) for f in mended.after.findings if f.fixable}
    assert left <= failed
    assert [p for p in root.parent.iterdir() if p != root] == []
    return report


def listing(root: Path) -> list[tuple[bytes, int, int]]:
    """Every path below a folder, with its size and when it was changed."""
    found = [(os.fsencode(p), p.lstat()) for p in root.rglob("*")]
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in found)


def around(config: bytes | str) -> dict[str, bytes | str | None]:
    """A repository in which a config meets every kind of neighbour."""
    return {
        "m/config.pbtxt": config,
        "m/1/model.onnx": VALID,
        "m/2/model.py": PYTHON_MODEL,
        "m/labels.txt": "a\n",
        "other/config.pbtxt": 'backend: "python" max_batch_size: 4',
        "other/1/model.py": PYTHON_MODEL,
    }


@BOUNDED
@given(st.binary(max_size=400))
def test_bytes_as_a_config(config: bytes) -> None:
    assert lint(around(config)).models >= 1


@BOUNDED
@given(st.text(max_size=200))
def test_text_as_a_config(config: str) -> None:
    assert lint(around(config.encode("utf-8", "surrogatepass"))).models >= 1


def cut_and_paste(draw: st.DrawFn) -> str:
    """A valid config with pieces cut out, doubled, or taken from another one."""
    text = draw(st.sampled_from(CONFIGS))
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        other = draw(st.sampled_from(CONFIGS))
        start = draw(st.integers(0, len(other)))
        piece = draw(
            st.sampled_from(["", text[at:end], other[start : start + 80], "-1", "99999999999999999999", '"\\0"', "{"])
        )
        text = text[:at] + piece + text[end:]
    return text


@BOUNDED
@given(st.composite(cut_and_paste)())
def test_valid_configs_cut_and_pasted(config: str) -> None:
    assert lint(around(config)).models >= 1


NAMES = st.sampled_from(["", "m", "other", "x", "y", "\x00", "é", "a" * 300, "INPUT0", "../x"])
NUMBERS = {
    "INT32": st.sampled_from([-(2**31), -1, 0, 1, 2, 8, 2**31 - 1]),
    "INT64": st.sampled_from([-(2**63), -1, 0, 1, 2, 8, 2**62, 2**63 - 1]),
    "UINT32": st.sampled_from([0, 1, 8, 2**32 - 1]),
    "UINT64": st.sampled_from([0, 1, 500, 2**64 - 1]),
    "FLOAT": st.sampled_from([0.0, 1.5, float("inf"), float("nan")]),
    "DOUBLE": st.sampled_from([0.0, -1.0, float("nan")]),
    "BOOL": st.booleans(),
    "STRING": NAMES,
}
FAVOURITES = {
    "platform": ["", "ensemble", "onnxruntime_onnx", "tensorrt_plan", "pytorch_libtorch", "none"],
    "backend": ["", "python", "onnxruntime", "pytorch", "tensorrt", "openvino", "x"],
    "default_model_filename": ["", "model.onnx", "model.py", "../model.onnx", "\x00"],
    "model_name": ["m", "other", "", "nobody"],
}


def fill(draw: st.DrawFn, message: object, depth: int) -> None:
    """Set random fields of a message to values from the edges of what they hold."""
    fields = message.DESCRIPTOR.fields  # type: ignore[attr-defined]
    if not fields:
        return
    for field in draw(st.lists(st.sampled_from(list(fields)), max_size=8 if depth == 0 else 4)):
        kinds = {getattr(type(field), f"TYPE_{name}"): values for name, values in NUMBERS.items()}
        repeated = field.is_repeated
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = draw(kinds[field.message_type.fields_by_name["key"].type])
            value = field.message_type.fields_by_name["value"]
            if value.message_type is None:
                target[key] = draw(kinds[value.type])
            else:
                fill(draw, target[key], depth + 1)
        elif field.message_type is not None:
            child = target.add() if repeated else target
            child.SetInParent()
            fill(draw, child, depth + 1)
        else:
            choices: st.SearchStrategy[object] = (
                st.sampled_from([v.number for v in field.enum_type.values] + [77])
                if field.enum_type is not None
                else st.sampled_from(FAVOURITES[field.name])
                if field.name in FAVOURITES
                else kinds[field.type]
            )
            if repeated:
                target.extend(draw(st.lists(choices, min_size=1, max_size=3)))
            else:
                setattr(message, field.name, draw(choices))


def any_message(draw: st.DrawFn) -> str:
    """The text of a message that parses and makes little sense."""
    message = ModelConfig()
    fill(draw, message, 0)
    return str(text_format.MessageToString(message))


@settings(BOUNDED, max_examples=150)
@given(st.composite(any_message)())
def test_messages_that_make_little_sense(config: str) -> None:
    assert lint(around(config)).models >= 1


@pytest.mark.parametrize(
    "field",
    [
        'input { name: "x" data_type: 77 dims: [ 1 ] }',
        'output { name: "y" data_type: 77 dims: [ 3 ] }',
        'input { name: "x" data_type: TYPE_FP32 format: 77 dims: [ 4 ] }',
        "instance_group { kind: 77 }",
        'batch_input { kind: 77 target_name: "x" data_type: 77 }',
        "dynamic_batching { default_queue_policy { timeout_action: 77 } }",
        "optimization { priority: 77 }",
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "python", "pytorch"])
def test_numbers_that_an_enum_does_not_have(field: str, backend: str) -> None:
    config = f'backend: "{backend}" max_batch_size: 8\n{field}'
    files: dict[str, bytes | str | None] = {
        "m/1/model.onnx": VALID,
        "m/1/model.pt": VALID,
        "m/1/model.py": PYTHON_MODEL,
    }
    ensemble = """platform: "ensemble" max_batch_size: 8
        input { name: "x" data_type: 77 dims: [ 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
        ensemble_scheduling { step { model_name: "m" model_version: -1
          input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }"""
    assert lint(files | {"m/config.pbtxt": config, "e/config.pbtxt": ensemble, "e/1": None}).models == 2


def mutated(draw: st.DrawFn) -> bytes:
    """A valid ONNX file with bytes changed, or cut off."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@BOUNDED
@given(st.one_of(st.binary(max_size=300), st.composite(mutated)()))
def test_garbage_as_an_onnx_file(model: bytes) -> None:
    assert lint({"m/config.pbtxt": CONFIGS[0], "m/1/model.onnx": model, "n/1/model.onnx": model}).models == 2


PYTHON_PIECES = st.sampled_from(
    [
        "import x",
        "from . import y",
        "from .. import *",
        "def f(:",
        "try:\n import z\nexcept A:\n pass",
        "\x00",
        "if TYPE_CHECKING: import q",
        "(" * 300,
        "x = " + "1+" * 3000 + "1",
        "class A:\n  import b.c.d as e",
        "\tmixed",
        "    tabs",
        "\\",
        "'''",
    ]
)


@BOUNDED
@given(st.one_of(st.binary(max_size=200), st.lists(PYTHON_PIECES, max_size=6).map(lambda p: "\n".join(p).encode())))
def test_garbage_as_python(code: bytes) -> None:
    files: dict[str, bytes | str | None] = {"m/1/model.py": code, "m/1/x.py": code, "m/1/requirements.txt": code}
    assert lint(files).models == 1


JSON_KEYS = ["parameters", "config", "key", "value", "ensemble_scheduling", "step", "input_map"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(JSON_KEYS), inner),
    max_leaves=12,
)


@BOUNDED
@given(JSON)
def test_any_json_beside_a_config(document: object) -> None:
    text = json.dumps(document)
    files: dict[str, bytes | str | None] = {"m/1/model.onnx": VALID, "m/x.json": text, "m/1/manifest.json": text}
    assert lint(files | {"y.json": text, "conch.json": text}).models == 1


# What a folder may hold is bytes without a slash and a zero.
ODD_NAMES = [
    "1",
    "01",
    "0",
    "3.tmp",
    "-1",
    "1_old",
    "9" * 40,
    ".git",
    " ",
    "١",
    "²",
    "config.pbtxt",
    "1\n",
    "a\x1b[31m",
]
FOLDER_NAMES = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=60),
)
RAW_NAMES = st.binary(min_size=1, max_size=60).map(lambda b: b.replace(b"/", b"_").replace(b"\x00", b"_"))


@BOUNDED
@given(st.lists(st.tuples(FOLDER_NAMES, FOLDER_NAMES, st.booleans()), max_size=5))
def test_folders_of_any_name(names: list[tuple[str, str, bool]]) -> None:
    files: dict[str, bytes | str | None] = {}
    for model, version, is_file in names:
        if version not in (".", ".."):
            files[f"m_{model}/{version}"] = VALID if is_file else None
        files[f"{model}.d/{version}.d/model.onnx"] = VALID
    lint(files)


@BOUNDED
@given(st.lists(RAW_NAMES, max_size=4, unique=True))
def test_names_that_are_no_text(names: list[bytes]) -> None:
    with scratch() as root:
        root.mkdir()
        write(root, {"m/1/model.onnx": VALID})
        for name in names:
            if name.strip(b"."):
                os.makedirs(os.path.join(os.fsencode(root), b"m", b"x" + name, b"1"), exist_ok=True)
                os.makedirs(os.path.join(os.fsencode(root), b"m", b"1", b"y" + name), exist_ok=True)
                os.makedirs(os.path.join(os.fsencode(root), b"z" + name, b"1"), exist_ok=True)
        lint_and_mend(root)


@pytest.mark.parametrize("target", ["/dev/zero", "/", "loop", "lost", "m"])
@pytest.mark.parametrize("place", ["m/config.pbtxt", "m/1", "m/1/model.onnx", "m/1/manifest.json", "link"])
def test_links_that_lead_elsewhere(tmp_path: Path, place: str, target: str) -> None:
    write(tmp_path, {"m/2/model.onnx": VALID, "m/1x": None})
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / target if not target.startswith("/") else target)
    if target == "/" and place in ("m/1", "link"):
        return  # a whole machine is no repository
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert check(tmp_path, OPTIONS).models >= 1
