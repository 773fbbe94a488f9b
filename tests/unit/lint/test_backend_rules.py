"""Rules R32 to R38: for each a repository that breaks it alone, and one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conch.lint import Finding
from conch.lint.finding import GuardFile
from conch.lint.python_imports import modules_of
from conch.manifest import Manifest, digest_files
from tests.fakes.lint_repositories import (
    FLOAT,
    PYTHON_CONFIG,
    PYTHON_MODEL,
    findings,
    found,
    message,
    number,
    onnx,
    onnx_model,
    python_model,
    tensor,
    weight,
    write,
)

SOURCES = sorted(p.parent for p in Path(__file__).parents[3].glob("python_backends/*/model.py"))


def only(root: Path, **options: object) -> Finding:
    """The one finding of a repository."""
    (finding,) = findings(root, **options)
    return finding


@pytest.mark.parametrize(
    ("ir_version", "opset", "message"),
    [(11, 21, "IR 11 > 10 for 24.10"), (10, 22, "opset 22 > 21 for 24.10")],
)
def test_an_onnx_file_newer_than_the_target(tmp_path: Path, ir_version: int, opset: int, message: str) -> None:
    onnx_model(tmp_path, model=onnx(ir_version=ir_version, opset=opset))
    finding = only(tmp_path)
    assert (finding.rule, finding.severity, finding.message) == ("R32", "error", message)
    assert finding.file == str(tmp_path / "m/1/model.onnx")
    assert "ONNX Runtime 1.19" in finding.expected


def test_an_onnx_file_that_the_target_loads(tmp_path: Path) -> None:
    onnx_model(tmp_path, model=onnx(ir_version=10, opset=21))
    assert found(tmp_path) == []


def test_opsets_of_other_domains_have_numbers_of_their_own(tmp_path: Path) -> None:
    onnx_model(tmp_path, model=onnx() + message(8, message(1, b"com.example"), number(2, 99)))
    assert found(tmp_path) == []


def test_only_served_versions_are_held_to_the_target(tmp_path: Path) -> None:
    onnx_model(tmp_path, model=onnx(ir_version=11), versions=["1"])
    onnx_model(tmp_path, versions=["2"])
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("weights.bin", "is missing"),
        ("../weights.bin", "lies outside"),
        ("..", "lies outside"),
        ("sub/../../weights.bin", "lies outside"),
        ("/weights.bin", "lies outside"),
        ("", "has no location"),
    ],
)
def test_weights_that_are_not_beside_the_file(tmp_path: Path, location: str, said: str) -> None:
    onnx_model(tmp_path, model=onnx(external=location))
    write(tmp_path / "m", {"weights.bin": b"outside"})
    results = [f for f in findings(tmp_path) if f.rule == "R33"]
    assert [(f.severity, f.place) for f in results] == [("error", "initializer[w]")]
    assert said in results[0].message


@pytest.mark.parametrize("location", ["weights.bin", "./sub/weights.bin"])
def test_weights_beside_the_file(tmp_path: Path, location: str) -> None:
    onnx_model(tmp_path, model=onnx(external=location))
    write(tmp_path / "m/1", {location: b"data"})
    assert found(tmp_path) == []


def test_a_file_of_weights_is_named_once(tmp_path: Path) -> None:
    graph = message(7, weight("w", "lost"), weight("v", "lost"), tensor(11, "x", FLOAT, ["n", 4]))
    graph = graph + message(7, weight("w", "lost"), weight("v", "lost"), tensor(11, "x", FLOAT, ["n", 4]))
    onnx_model(tmp_path, config='backend: "onnxruntime" max_batch_size: 8', model=number(1, 10) + graph)
    results = [f for f in findings(tmp_path) if f.rule == "R33"]
    assert [f.got for f in results] == ['location "lost" of w and 1 more weights']


def environment(value: str) -> str:
    return PYTHON_CONFIG + f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{value}" }} }}'


@pytest.mark.parametrize(
    ("value", "severity"),
    [
        ("$$TRITON_MODEL_DIRECTORY/lost.tar.gz", "error"),
        ("$$TRITON_MODEL_DIRECTORY", "error"),
        ("/home/me/env.tar.gz", "warning"),
        ("env.tar.gz", "warning"),
        ("$TRITON_MODEL_DIRECTORY/env.tar.gz", "warning"),
        ("", "warning"),
    ],
)
def test_an_environment_that_is_not_in_the_repository(tmp_path: Path, value: str, severity: str) -> None:
    folder = python_model(tmp_path, config=environment(value))
    write(folder, {"env.tar.gz": b"packed"})

    finding = only(tmp_path)

    assert (finding.rule, finding.severity, finding.place) == ("R34", severity, "parameters[EXECUTION_ENV_PATH]")
    assert "$$TRITON_MODEL_DIRECTORY" in finding.fix or severity == "error"


@pytest.mark.parametrize(
    "value", ["$$TRITON_MODEL_DIRECTORY/env.tar.gz", "$$TRITON_MODEL_DIRECTORY/1", "s3://b/e.tar.gz"]
)
def test_an_environment_in_the_repository(tmp_path: Path, value: str) -> None:
    folder = python_model(tmp_path, config=environment(value))
    write(folder, {"env.tar.gz": b"packed"})
    assert found(tmp_path) == []


MIB = 1 << 20


def test_too_little_shared_memory_to_load(tmp_path: Path) -> None:
    python_model(tmp_path, "a", PYTHON_CONFIG.replace("count: 1", "count: 3"))
    python_model(tmp_path, "b", PYTHON_CONFIG)
    finding = only(tmp_path, shm_bytes=4 * MIB - 1)
    assert (finding.rule, finding.severity) == ("R35", "error")
    assert "4 MiB for 4 Python instances" in finding.expected
    assert "--shm-size=64m" in finding.fix


@pytest.mark.parametrize("shm_bytes", [4 * MIB, None])
def test_enough_shared_memory(tmp_path: Path, shm_bytes: int | None) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG.replace("count: 1", "count: 4"))
    assert found(tmp_path, shm_bytes=shm_bytes) == []


def test_models_of_other_backends_need_no_shared_memory(tmp_path: Path) -> None:
    onnx_model(tmp_path)
    assert found(tmp_path, shm_bytes=0) == []


def test_too_little_shared_memory_for_full_batches(tmp_path: Path) -> None:
    # 8 items of [3, 1024, 1024] FP32 in and 12 bytes each out: 96 MiB, beside the 1 MiB that the instance begins with.
    python_model(tmp_path, config=PYTHON_CONFIG.replace("dims: [ 4 ]", "dims: [ 3, 1024, 1024 ]"))
    finding = only(tmp_path, shm_bytes=64 * MIB)
    assert (finding.rule, finding.severity) == ("R35", "warning")
    assert "at least 97 MiB" in finding.expected
    assert "--shm-size=128m" in finding.fix
    assert found(tmp_path, shm_bytes=97 * MIB) == []


def test_each_version_that_is_served_has_instances_of_its_own(tmp_path: Path) -> None:
    python_model(tmp_path, config=PYTHON_CONFIG + "version_policy { all { } }", versions=["1", "2", "3"])
    assert found(tmp_path, shm_bytes=2 * MIB) == ["R35"]
    assert found(tmp_path, shm_bytes=3 * MIB) == []


LISTED = {"parameters": [{"key": "a", "value": {"string_value": "b"}}]}
BARE = {"parameters": {"a": "b"}, "max_batch_size": 4}
MAPPED = {"ensemble_scheduling": {"step": [{"model_name": "m", "input_map": [{"key": "x", "value": "y"}]}]}}


@pytest.mark.parametrize(
    ("document", "place", "due"),
    [
        (LISTED, "parameters", '{"a": {"string_value": "b"}}'),
        (BARE, "parameters", '{"a": {"string_value": "b"}}'),
        (MAPPED, "ensemble_scheduling.step.input_map", '{"x": "y"}'),
        ({"parameters": {"config": json.dumps(LISTED)}}, "parameters", '{"a": {"string_value": "b"}}'),
    ],
    ids=["listed", "bare", "mapped", "body of a load call"],
)
@pytest.mark.parametrize("file", ["m/override.json", "m/configs/big.json", "override.json"])
def test_json_written_as_protobuf_text(
    tmp_path: Path, document: dict[str, object], place: str, due: str, file: str
) -> None:
    python_model(tmp_path)
    write(tmp_path, {file: json.dumps(document)})
    results = [f for f in findings(tmp_path) if f.rule == "R36"]
    assert [(f.severity, f.place, f.file) for f in results] == [("error", place, str(tmp_path / file))]
    assert due in results[0].fix


@pytest.mark.parametrize(
    "document",
    [
        '{"parameters": {"a": {"string_value": "b"}}, "max_batch_size": 4}',
        '{"parameters": [{"key": "a", "value": "b"}], "vocab_size": 30522}',
        '{"parameters": {"config": "no json"}}',
        "[1, 2]",
        "no json",
        "{}",
    ],
    ids=["right", "no config", "body without a config", "list", "text", "empty"],
)
def test_json_that_is_right_or_another_thing(tmp_path: Path, document: str) -> None:
    python_model(tmp_path)
    write(tmp_path, {"m/override.json": document})
    assert "R36" not in found(tmp_path)


def test_bytecode_is_written_where_nothing_stops_it(tmp_path: Path) -> None:
    folder = python_model(tmp_path)
    guard = folder / "1/__pycache__"
    guard.unlink()

    finding = only(tmp_path)

    assert (finding.rule, finding.severity) == ("R37", "note")
    assert isinstance(finding.mend, GuardFile)
    assert finding.mend.path == guard


def test_a_folder_of_bytecode_is_no_guard(tmp_path: Path) -> None:
    folder = python_model(tmp_path)
    (folder / "1/__pycache__").unlink()
    write(folder, {"1/__pycache__/model.cpython-310.pyc": b"code"})
    assert only(tmp_path).rule == "R37"
    assert only(tmp_path).fix.startswith("rm -r ")


def with_manifest(folder: Path, *packages: str) -> Path:
    """A manifest in a version folder that names these packages."""
    files = digest_files(folder)
    manifest = Manifest("m", "2026-01-01T00:00:00+00:00", {}, files, "", packages=packages)
    return manifest.write(folder)


def test_a_published_version_is_not_mended_in_place(tmp_path: Path) -> None:
    folder = python_model(tmp_path)
    (folder / "1/__pycache__").unlink()
    with_manifest(folder / "1")
    results = [f for f in findings(tmp_path) if f.rule == "R37"]
    assert [f.fixable for f in results] == [False]
    assert "publish" in results[0].fix


def test_other_backends_write_no_bytecode(tmp_path: Path) -> None:
    onnx_model(tmp_path)
    assert found(tmp_path) == []


def imported(root: Path, code: str, *packages: str, files: dict[str, bytes | str | None] | None = None) -> Path:
    """A published Python model with this code before its class."""
    folder = python_model(root, model=code + "\n" + PYTHON_MODEL)
    write(folder / "1", files or {})
    with_manifest(folder / "1", *packages)
    return folder


@pytest.mark.parametrize(
    ("code", "module", "place"),
    [
        ("import tokenizers", "tokenizers", "line 1"),
        ("import os, tokenizers.models as m", "tokenizers", "line 1"),
        ("from tokenizers import Tokenizer", "tokenizers", "line 1"),
        ("def late():\n    import tokenizers", "tokenizers", "line 2"),
        ("class A:\n    if True:\n        with open('x') as f:\n            import tokenizers", "tokenizers", "line 4"),
        ("async def late():\n    from tokenizers.x import y", "tokenizers", "line 2"),
        ("try:\n    import tokenizers\nfinally:\n    pass", "tokenizers", "line 2"),
    ],
)
def test_imports_that_nothing_brings(tmp_path: Path, code: str, module: str, place: str) -> None:
    imported(tmp_path, code, "pillow>=10")
    finding = only(tmp_path)
    assert (finding.rule, finding.severity, finding.place) == ("R38", "warning", place)
    assert module in finding.message
    assert ("at a request" in finding.got) == ("def " in code)


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import json, os.path, xml.etree.ElementTree", ()),
        ("import numpy as np\nimport triton_python_backend_utils as pb_utils\nimport c_python_backend_utils", ()),
        ("from __future__ import annotations", ()),
        (
            "from PIL import Image\nimport yaml, sklearn.svm, cv2",
            ("Pillow>=10", "PyYAML", "scikit_learn", "opencv-python"),
        ),
        ("import huggingface_hub", ("huggingface-hub[cli]==0.20; python_version > '3.8'",)),
        ("try:\n    import tokenizers\nexcept ImportError:\n    tokenizers = None", ()),
        ("try:\n    import json\nexcept ImportError:\n    import simplejson as json", ()),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", ()),
        ("import typing\nif typing.TYPE_CHECKING:\n    import torch", ()),
    ],
)
def test_imports_that_are_there(tmp_path: Path, code: str, packages: tuple[str, ...]) -> None:
    imported(tmp_path, code, *packages)
    assert found(tmp_path) == []


SIBLINGS: dict[str, bytes | str | None] = {
    "steps.py": "import parts.deep.end",
    "parts/__init__.py": "from . import first",
    "parts/first.py": "from .second import work",
    "parts/second.py": "from ..parts.third import lost\nwork = 1",
    "parts/third.py": "import lost_too",
    "parts/deep/end.py": "import lost",
    "unused.py": "import never_asked_for",
    "native.cpython-310-x86_64-linux-gnu.so": b"",
    "data/words.txt": "",
}


def test_imports_are_followed_through_the_version_folder(tmp_path: Path) -> None:
    imported(tmp_path, "import steps, native", files=SIBLINGS)
    lost = {Path(f.file).relative_to(tmp_path / "m/1").as_posix(): f.message for f in findings(tmp_path)}
    assert lost.keys() == {"parts/deep/end.py", "parts/third.py"}
    assert lost["parts/third.py"].startswith("lost_too ")


def test_a_name_in_a_package_may_be_a_module(tmp_path: Path) -> None:
    imported(
        tmp_path, "from parts import bad, fine", files={"parts/__init__.py": "fine = 1", "parts/bad.py": "import lost"}
    )
    assert only(tmp_path).file == str(tmp_path / "m/1/parts/bad.py")


def test_a_package_is_named_once(tmp_path: Path) -> None:
    imported(tmp_path, "import lost\nimport lost.more\ndef late():\n    import lost")
    assert only(tmp_path).place == "line 1"


def test_a_folder_of_data_is_no_module(tmp_path: Path) -> None:
    imported(tmp_path, "import data", files={"data/words.txt": "", "data/words.json": "{}"})
    assert found(tmp_path) == ["R38"]


def test_without_a_manifest_it_is_a_note(tmp_path: Path) -> None:
    python_model(tmp_path, model="import torch\n" + PYTHON_MODEL)
    assert (only(tmp_path).rule, only(tmp_path).severity) == ("R38", "note")


@pytest.mark.parametrize(
    ("lines", "rules"), [("# it\n--extra-index-url x\ntorch>=2 # fast", []), ("-r x\nnumpy", ["R38"])]
)
def test_requirements_beside_the_code_count(tmp_path: Path, lines: str, rules: list[str]) -> None:
    folder = python_model(tmp_path, model="import torch\n" + PYTHON_MODEL)
    write(folder, {"1/requirements.txt": lines})
    warnings = [f for f in findings(tmp_path) if f.severity == "warning"]
    assert [f.rule for f in warnings] == rules
    assert all("(packages: numpy)" in f.expected for f in warnings)


def test_an_environment_of_its_own_brings_what_it_has(tmp_path: Path) -> None:
    folder = python_model(
        tmp_path, config=environment("$$TRITON_MODEL_DIRECTORY/env.tar.gz"), model="import torch\n" + PYTHON_MODEL
    )
    write(folder, {"env.tar.gz": b"packed"})
    assert found(tmp_path) == []


@pytest.mark.parametrize("code", ["def broken(:", "x = '\x00'", "    indented = 1\nnot = 2"])
def test_code_that_is_no_python(tmp_path: Path, code: str) -> None:
    python_model(tmp_path, model=code)
    assert (only(tmp_path).rule, only(tmp_path).severity) == ("R38", "error")
    assert only(tmp_path).file == str(tmp_path / "m/1/model.py")


def test_modules_of_packages() -> None:
    assert {"PIL", "yaml", "sklearn", "cv2", "skimage", "bs4"} <= modules_of(
        ["Pillow", "PyYAML>=6", "scikit-learn", "opencv-python-headless", "scikit-image", "beautifulsoup4"]
    )
    assert "torch" not in modules_of(["# torch", "-r other.txt", ""])


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_our_own_python_models(tmp_path: Path, source: Path) -> None:
    """The sources of our own Python models, with the packages that export writes into their manifests."""
    files = {p.name: p.read_text() for p in source.glob("*.py")}
    packages = [line for line in (source / "requirements.txt").read_text().splitlines() if line]
    folder = python_model(tmp_path)
    write(folder / "1", files)
    with_manifest(folder / "1", *packages)
    assert found(tmp_path) == []
