"""The fake is like Triton's module where it matters, and leaves no traces."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import strings

ECHO = """
import triton_python_backend_utils as pb_utils
from sibling_of_echo import SUFFIX

class TritonPythonModel:
    def initialize(self, args):
        self.args = args
        pb_utils.Logger.log_info("up")

    def execute(self, requests):
        texts = [pb_utils.get_input_tensor_by_name(r, "text").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("text", t + SUFFIX)]) for t in texts]

    def finalize(self):
        pb_utils.Logger.log_info("down")
"""
TEXT = ("TYPE_STRING", [1])


@pytest.fixture
def real() -> ModuleType:
    """The Python half of the real module, from the server's wheel."""
    wheel = importlib.util.find_spec("pytriton")
    if wheel is None or wheel.origin is None:
        pytest.skip("nvidia-pytriton is not installed")
    path = Path(wheel.origin).parent / "tritonserver/backends/python/triton_python_backend_utils.py"
    spec = importlib.util.spec_from_file_location("real_backend_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, suffix: str, source: str = ECHO) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder / "sibling_of_echo.py").write_text(f"SUFFIX = {suffix.encode()!r}\n")
    return folder


def config(**changed: Any) -> dict[str, Any]:
    return fake.model_config(**{"inputs": {"text": TEXT}, "outputs": {"text": TEXT}, **changed})


@pytest.mark.parametrize(
    "name", ["get_input_tensor_by_name", "get_output_tensor_by_name", "get_input_config_by_name", "ModelConfig"]
)
def test_the_real_module_has_the_same_names(name: str, real: ModuleType) -> None:
    assert hasattr(real, name)
    assert hasattr(fake, name)


def test_types_are_those_of_the_real_module(real: ModuleType) -> None:
    assert fake.TRITON_STRING_TO_NUMPY == real.TRITON_STRING_TO_NUMPY


def test_configs_are_found_as_by_the_real_module(real: ModuleType) -> None:
    given = config(inputs={"a": TEXT, "b": TEXT})
    assert fake.get_input_config_by_name(given, "b") == real.get_input_config_by_name(given, "b") is not None
    assert fake.get_output_config_by_name(given, "b") is None is real.get_output_config_by_name(given, "b")


def test_strings_arrive_as_bytes() -> None:
    tensor = fake.Tensor("text", strings("철수", b"\xff"))
    assert tensor.as_numpy().tolist() == [["철수".encode()], [b"\xff"]]


def test_two_versions_import_their_own_siblings_and_leave_nothing(tmp_path: Path) -> None:
    modules, path = set(sys.modules), list(sys.path)
    answers = []
    for version in ("1", "2"):
        with fake.load(write(tmp_path / "echo" / version, version), config()) as model:
            answers += model.infer(text=strings("v"))["text"].ravel().tolist()
            assert model.model.args["model_version"] == version
    assert answers == [b"v1", b"v2"]
    assert set(sys.modules) - modules == set()
    assert sys.path == path
    assert fake.Logger.lines == [("info", "up"), ("info", "down")]
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_load_that_fails_leaves_nothing(tmp_path: Path) -> None:
    modules, path = set(sys.modules), list(sys.path)
    folder = write(tmp_path / "echo" / "1", "", "import sibling_of_echo\nraise ValueError('no')\n")
    with pytest.raises(ValueError, match="no"), fake.load(folder, config()):
        pass
    assert set(sys.modules) - modules == set()
    assert sys.path == path


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"other": TEXT}, "output text is not declared"),
        ({"text": ("TYPE_FP32", [1])}, "output text is object, declared TYPE_FP32"),
        ({"text": ("TYPE_STRING", [2])}, r"output text has shape \[1, 1\], declared \[-1, 2\]"),
    ],
)
def test_answers_that_break_the_config_are_caught(outputs: Any, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "echo" / "1", "")
    with fake.load(folder, config(outputs=outputs)) as model, pytest.raises(AssertionError, match=message):
        model.infer(text=strings("v"))


def test_a_missing_answer_is_caught(tmp_path: Path) -> None:
    source = ECHO.replace("return [", "return [][:0] and [")
    with fake.load(write(tmp_path / "echo" / "1", "", source), config()) as model, pytest.raises(AssertionError):
        model.execute({"text": strings("v")}, {"text": strings("w")})
