"""The whole pipeline's model.py, run by a fake of Triton's Python backend: a tokenizer, a graph and a classifier."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.fakes import triton_python_backend_utils as fake
from tests.fakes.triton_python_backend_utils import LoadedModel, Logger, TritonError, strings

Load = Callable[..., AbstractContextManager[LoadedModel]]

SOURCES = Path(__file__).resolve().parents[3] / "python_backends"
WORDS = {"[PAD]": 0, "ham": 1, "spam": 2, "promo": 3, "unknown": 4}
# The graph's row for each token; there is none for "unknown", so that ONNX Runtime fails on it.
ROWS = np.array([[0.5, 0.5, 0.5], [9, 0, 0], [0, 9, 0], [0, 0, 9]], dtype=np.float32)
LABELS = "ham\nspam\npromo\n"
TEXT = {"text": ("TYPE_STRING", [1])}
PUBLIC = {"label": ("TYPE_STRING", [1]), "scores": ("TYPE_FP32", [3])}


def graph() -> onnx.ModelProto:
    """logits [batch, 3] = the sum of the tokens' rows + 100 for each text of the batch."""
    nodes = [
        helper.make_node("Gather", ["rows", "tokens"], ["found"]),
        helper.make_node("ReduceSum", ["found", "axes"], ["sums"], keepdims=0),
        helper.make_node("Shape", ["tokens"], ["size"], end=1),
        helper.make_node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "hundred"], ["share"]),
        helper.make_node("Add", ["sums", "share"], ["logits"]),
    ]
    weights = {"rows": ROWS, "axes": np.array([1]), "hundred": np.array([100], dtype=np.float32)}
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


def step(role: str, part: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> dict[str, Any]:
    """A step of pipeline.json; a tensor is (name, type, dims, name in the pipeline)."""
    keys = ("name", "data_type", "dims", "tensor")
    ends = {end: [dict(zip(keys, t, strict=True)) for t in ts] for end, ts in (("input", inputs), ("output", outputs))}
    return {"role": role, "part": part, **ends}


TOKENIZE = step(
    "preprocess",
    "text_tokenizer",
    [("text", "TYPE_STRING", [1], "text")],
    [("input_ids", "TYPE_INT64", [-1], "input_ids")],
)
GRAPH = step(
    "model",
    "onnx_graph",
    [("tokens", "TYPE_INT64", [-1], "input_ids")],
    [("logits", "TYPE_FP32", [3], "numbers")],
)
CLASSIFY = step(
    "postprocess",
    "classify",
    [("logits", "TYPE_FP32", [3], "numbers")],
    [("label", "TYPE_STRING", [1], "label"), ("scores", "TYPE_FP32", [3], "scores")],
)
NUMBERS = ("TYPE_FP32", [3])


@pytest.fixture
def load(version_folder: Any, tmp_path: Path) -> Load:
    """A function (steps=..., outputs=..., device=..., **config) -> the loaded pipeline; scores are the logits."""
    words = Tokenizer(models.WordLevel(WORDS, unk_token="unknown"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    onnx.save(graph(), str(tmp_path / "model.onnx"))

    @contextmanager
    def run(
        steps: Sequence[Mapping[str, Any]] = (TOKENIZE, GRAPH, CLASSIFY),
        *,
        inputs: Mapping[str, Any] = TEXT,
        outputs: Mapping[str, Any] = PUBLIC,
        device: str = "CPU",
        parameters: Mapping[str, str] = {"activation": "none"},
        **config: Any,
    ) -> Iterator[LoadedModel]:
        files = {"tokenizer.json": tmp_path / "tokenizer.json", "model.onnx": tmp_path / "model.onnx"}
        plan = json.dumps({"steps": list(steps)})
        folder = version_folder("whole_pipeline", {**files, "labels.txt": LABELS, "pipeline.json": plan})
        for part in ("text_tokenizer", "classify"):
            shutil.copytree(SOURCES / part, folder, ignore=lambda *_: ["model.py", "__pycache__"], dirs_exist_ok=True)
        message = fake.model_config(
            inputs=inputs, outputs=outputs, parameters=parameters, default_model_filename="model.py", **config
        )
        with fake.load(folder, message, kind=device) as model:
            yield model

    return run


def said(answer: Any) -> list[str]:
    return [label.decode() for label in answer["label"][:, 0]]


def test_the_parts_run_in_order(load: Load) -> None:
    with load() as model:
        answer = model.infer(text=strings("spam spam ham"))
    assert said(answer) == ["spam"]
    np.testing.assert_array_equal(answer["scores"], [[109, 118, 100]])


def test_on_a_cpu_every_row_runs_alone(load: Load) -> None:
    with load() as model:
        first, second = model.execute({"text": strings("ham")}, {"text": strings("spam spam", "promo", "ham ham ham")})
    np.testing.assert_array_equal(first["scores"], [[109, 100, 100]])
    np.testing.assert_array_equal(second["scores"], [[100, 118, 100], [100, 100, 109], [127, 100, 100]])
    assert said(second) == ["spam", "promo", "ham"]


MERGED = {"activation": "none", "merge_rows": "true"}


@pytest.mark.parametrize(("most", "together"), [(8, (3, 3, 3)), (2, (2, 2, 1))])
def test_rows_of_one_shape_run_together_where_they_may(most: int, together: Sequence[int], load: Load) -> None:
    with load(parameters=MERGED, max_batch_size=most) as model:
        first, second, third = model.execute(
            {"text": strings("ham")}, {"text": strings("spam", "promo spam")}, {"text": strings("promo")}
        )
    one, two, three = (100 * count for count in together)  # what the graph adds to each row of a run
    np.testing.assert_array_equal(first["scores"], [[one + 9, one, one]])
    np.testing.assert_array_equal(second["scores"], [[two, two + 9, two], [100, 109, 109]])
    np.testing.assert_array_equal(third["scores"], [[three, three, three + 9]])


def test_a_bad_row_among_merged_ones_fails_alone(load: Load) -> None:
    with load(parameters=MERGED) as model:
        first, error, last = model.execute(*({"text": strings(text)} for text in ("ham", "what", "promo")))
    np.testing.assert_array_equal(first["scores"], [[109, 100, 100]])
    np.testing.assert_array_equal(last["scores"], [[100, 100, 109]])
    assert isinstance(error, TritonError)
    assert "the model failed" in error.message()


IDS = {"outputs": {"input_ids": ("TYPE_INT64", [-1])}, "parameters": {}}


def test_on_a_gpu_all_rows_run_as_one_padded_batch(load: Load) -> None:
    with load((TOKENIZE,), **IDS, device="GPU") as model:
        one, two = model.execute({"text": strings("ham")}, {"text": strings("promo", "spam spam ham")})
    np.testing.assert_array_equal(one["input_ids"], [[1, 0, 0]])
    np.testing.assert_array_equal(two["input_ids"], [[3, 0, 0], [2, 2, 1]])


def test_a_graph_on_a_gpu_wants_an_onnxruntime_that_can_use_it(load: Load) -> None:
    with pytest.raises(Exception, match=r"asks for KIND_GPU(.|\n)*onnxruntime-gpu"), load(device="GPU"):
        pass


@pytest.mark.parametrize(
    ("bad", "code", "message"),
    [
        (strings("ham", b"\xff"), TritonError.INVALID_ARG, "input text: got bytes that are not UTF-8 at index 1"),
        (strings("ham", "what"), TritonError.INTERNAL, "the model failed: .*indices element out of data bounds"),
    ],
)
def test_a_bad_request_fails_alone(bad: Any, code: int, message: str, load: Load) -> None:
    with load() as model:
        first, error, last = model.execute({"text": strings("ham")}, {"text": bad}, {"text": strings("promo")})
    assert said(first) == ["ham"]
    assert said(last) == ["promo"]
    assert isinstance(error, TritonError)
    assert error.code() == code
    assert re.search(message, error.message(), re.DOTALL)


def test_a_bad_request_fails_alone_on_a_gpu_too(load: Load) -> None:
    with load((TOKENIZE,), **IDS, device="GPU") as model:
        first, error, last = model.execute(*({"text": strings(text)} for text in ("ham", b"\xff", "promo promo")))
    np.testing.assert_array_equal(first["input_ids"], [[1]])
    np.testing.assert_array_equal(last["input_ids"], [[3, 3]])
    assert isinstance(error, TritonError)
    assert "at index 0" in error.message()


def test_only_requested_outputs_are_given(load: Load) -> None:
    with load() as model:
        (answer,) = model.execute({"text": strings("ham")}, outputs=["label"])
        response = model.model.execute(
            [fake.InferenceRequest(inputs=[fake.Tensor("text", strings("ham"))], requested_output_names=["label"])]
        )[0]
    assert said(answer) == ["ham"]
    assert [tensor.name() for tensor in response.output_tensors()] == ["label"]


def test_an_inner_tensor_may_be_public_too(load: Load) -> None:
    with load(outputs={**PUBLIC, "numbers": NUMBERS}, parameters={"activation": "softmax"}) as model:
        answer = model.infer(text=strings("ham", "promo"))
    np.testing.assert_array_equal(answer["numbers"], [[109, 100, 100], [100, 100, 109]])


def test_rows_of_an_output_of_any_length_stay_together(load: Load) -> None:
    with load((TOKENIZE,), **IDS) as model:
        answer = model.infer(text=strings("spam spam", "ham"))
    np.testing.assert_array_equal(answer["input_ids"], [[2, 2], [1, 0]])


def test_a_name_that_two_parts_have_takes_its_role_in_front(load: Load) -> None:
    first = {**CLASSIFY, "role": "first", "output": [{**CLASSIFY["output"][1], "tensor": "inner"}]}
    second = {**CLASSIFY, "input": [{**CLASSIFY["input"][0], "tensor": "inner"}]}
    ends = {"inputs": {"numbers": NUMBERS}, "outputs": PUBLIC}
    roles = {"first.activation": "none", "postprocess.activation": "sigmoid"}
    with load((first, second), **ends, parameters=roles) as model:
        answer = model.infer(numbers=np.array([[0, 0, 100]], dtype=np.float32))
    np.testing.assert_allclose(answer["scores"], [[0.5, 0.5, 1]])
    message = "parameter activation: got one for several parts, expected first.activation"
    with pytest.raises(ValueError, match=message), load((first, second), **ends):
        pass


def test_what_the_session_ignores_is_logged(load: Load) -> None:
    group = [{"count": 2, "kind": "KIND_CPU"}]
    with load(instance_group=group):
        assert any("2 instances without intra_op_thread_count" in line for _, line in Logger.lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"activaton": "none"}}, "parameter activaton: got an unknown name.*did you mean activation"),
        ({"parameters": {"postprocess.max_length": "5"}}, "parameter max_length: got an unknown name"),
        ({"parameters": {"activation": "relu"}}, "parameter activation: got 'relu'"),
        ({"parameters": {"merge_rows": "yes"}}, "parameter merge_rows: got 'yes', expected true or false"),
        ({"max_batch_size": 0}, "max_batch_size: got 0, expected 1 or more"),
        ({"outputs": {"best": ("TYPE_STRING", [1])}}, r"output best: got no step in pipeline\.json that writes it"),
        ({"steps": (GRAPH, CLASSIFY)}, r"pipeline\.json: got a model that reads input_ids, expected one of text"),
        ({"steps": ({"role": "model"},)}, r"pipeline\.json cannot be read: KeyError: 'part'"),
    ],
)
def test_what_cannot_work_stops_the_load(change: dict[str, Any], message: str, load: Load) -> None:
    with pytest.raises(ValueError, match=message), load(**change):
        pass


@pytest.mark.parametrize("key", ["execution_mode", "model.execution_mode"])
def test_the_graph_s_settings_are_those_of_the_native_backend(key: str, load: Load) -> None:
    with pytest.raises(Exception, match="parameter execution_mode is out of range"), load(parameters={key: "7"}):
        pass


def test_a_graph_of_other_tensors_stops_the_load(load: Load) -> None:
    wrong = {**GRAPH, "output": [{**GRAPH["output"][0], "dims": [4]}]}
    with pytest.raises(Exception, match="output logits has other dims in the model"), load((TOKENIZE, wrong, CLASSIFY)):
        pass
