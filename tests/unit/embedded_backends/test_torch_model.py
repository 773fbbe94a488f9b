"""The pytorch stand-in as a whole, with real torch and a fake Triton."""

import numpy as np
import pytest
import torch
from conch_backend_config import LoadFailed

from tests.fakes import torchscript_modules as modules
from tests.fakes import triton_python_backend_utils as fake

ONE = ("TYPE_FP32", [1])


@pytest.fixture(autouse=True)
def restore_torch():
    """A stand-in sets switches of the whole process, which is its own inside Triton."""
    threads, optimize = torch.get_num_threads(), torch._C._get_graph_executor_optimize()
    yield
    torch.set_num_threads(threads)
    torch._C._set_graph_executor_optimize(optimize)


def load(load_stand_in, module, inputs=None, outputs=None, **more):
    return load_stand_in(
        "pytorch",
        {"model.pt": module if isinstance(module, bytes) else modules.scripted(module)},
        inputs={"x": ONE} if inputs is None else inputs,
        outputs={"y": ONE} if outputs is None else outputs,
        **more,
    )


def column(*values, dtype=np.float32):
    return np.array(values, dtype).reshape(-1, 1)


@pytest.mark.parametrize("names", [("a", "b"), ("INPUT__0", "INPUT__1")])
def test_both_ways_of_naming_find_the_same_arguments(load_stand_in, names):
    a, b = names
    model = load(
        load_stand_in, modules.Combine(), {b: ONE, a: ONE}, {"OUTPUT__1": ONE, "OUTPUT__0": ONE}, max_batch_size=8
    )
    answer = model.infer(**{b: column(10, 20), a: column(1, 2)})
    assert answer["OUTPUT__0"].tolist() == [[21], [42]]
    assert answer["OUTPUT__1"].tolist() == [[-9], [-18]]


def test_answers_are_those_of_the_module(load_stand_in):
    weight = torch.tensor([[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]])
    vector = {"inputs": {"INPUT__0": ("TYPE_FP32", [3])}, "outputs": {"OUTPUT__0": ("TYPE_FP32", [2])}}
    model = load(load_stand_in, modules.traced_linear(weight), **vector)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    with torch.no_grad():
        due = torch.nn.functional.linear(torch.from_numpy(x), weight).numpy()
    np.testing.assert_array_equal(model.infer(INPUT__0=x)["OUTPUT__0"], due)


def test_a_gathered_batch_is_split_again(load_stand_in):
    answers = load(load_stand_in, modules.Same()).execute({"x": column(1)}, {"x": column(2, 3)}, {"x": column(4)})
    assert [answer["y"].ravel().tolist() for answer in answers] == [[1], [2, 3], [4]]


def test_a_request_that_makes_the_run_fail_fails_alone(load_stand_in):
    model = load(load_stand_in, modules.Lookup(), {"x": ("TYPE_INT64", [1])})
    good, beyond, wrong = model.execute(
        {"x": column(2, dtype=np.int64)}, {"x": column(9, dtype=np.int64)}, {"x": column(1)}
    )
    assert good["y"].tolist() == [[2]]
    assert beyond.code() == fake.TritonError.INTERNAL
    assert "out of range" in beyond.message() or "out of bounds" in beyond.message()
    assert "x INT64 [1, 1]" in beyond.message()
    assert wrong.code() == fake.TritonError.INVALID_ARG


def test_a_dict_of_inputs(load_stand_in):
    model = load(load_stand_in, modules.FromDict(), {"q": ONE, "p": ONE})
    assert model.infer(q=column(1), p=column(5))["y"].tolist() == [[4]]


def test_lists_of_strings(load_stand_in):
    text = {"name": "texts", "data_type": "TYPE_STRING", "dims": [-1]}
    model = load(
        load_stand_in,
        modules.Shout(),
        input=[text, {"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
        output=[{**text, "name": "loud__0"}, {"name": "y__1", "data_type": "TYPE_FP32", "dims": [1]}],
        max_batch_size=0,
    )
    answer = model.infer(texts=np.array(["hey", "한국어"], object), x=np.zeros(1, np.float32))
    assert [text.decode() for text in answer["loud__0"]] == ["hey!", "한국어!"]
    with pytest.raises(AssertionError, match="input texts holds a string that is not UTF-8"):
        model.infer(texts=np.array([b"\xff"], object), x=np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (modules.Half(), "output y is TYPE_FP32 in config.pbtxt, and TYPE_FP16 in the model"),
        (modules.Mean(), "output y is a scalar"),
    ],
)
def test_results_that_differ_from_the_configuration_are_told(load_stand_in, module, words):
    (error,) = load(load_stand_in, module).execute({"x": column(1)})
    assert words in error.message()


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"])
def test_every_type_of_the_native_backend_passes(load_stand_in, datatype):
    tensor = (f"TYPE_{datatype}", [3])
    model = load(load_stand_in, modules.Same(), {"x": tensor}, {"y": tensor})
    x = np.array([[0, 1, 1]], fake.triton_string_to_numpy(tensor[0]))
    answer = model.infer(x=x)["y"]
    assert answer.dtype == x.dtype
    np.testing.assert_array_equal(answer, x)


def test_parameters_reach_torch(load_stand_in):
    load(load_stand_in, modules.Same(), parameters={"INTRA_OP_THREAD_COUNT": "1", "DISABLE_OPTIMIZED_EXECUTION": "1"})
    assert torch.get_num_threads() == 1
    assert torch._C._get_graph_executor_optimize() is False


@pytest.mark.parametrize(("text", "inference"), [("true", True), ("false", False)])
def test_inference_mode_is_a_choice(load_stand_in, monkeypatch, text, inference):
    entered = []
    monkeypatch.setattr(torch, "no_grad", lambda real=torch.no_grad: entered.append(1) or real())
    model = load(load_stand_in, modules.Same(), parameters={"INFERENCE_MODE": text})
    model.infer(x=column(1))
    assert bool(entered) is not inference


def test_another_file_name_is_honoured(load_stand_in):
    files = {"weights.pt": modules.scripted(modules.Same())}
    model = load_stand_in("pytorch", files, inputs={"x": ONE}, outputs={"y": ONE}, default_model_filename="weights.pt")
    assert model.infer(x=column(3))["y"].tolist() == [[3]]


def test_a_file_that_is_no_torchscript_is_refused(load_stand_in):
    with pytest.raises(LoadFailed, match=r"torch \S+ cannot load .*model.pt\n(.*\n)*.*torch.jit.save"):
        load(load_stand_in, b"not a module")


def test_a_dict_of_results_is_refused(load_stand_in):
    with pytest.raises(LoadFailed, match=r"got:      forward\(x: Tensor\) -> Dict\[str, Tensor\]"):
        load(load_stand_in, modules.ToDict())


def test_a_module_in_training_mode_is_told(load_stand_in):
    load(load_stand_in, modules.file_of(torch.jit.script(modules.Same().train())))
    assert any("training mode" in text for _, text in fake.Logger.lines)


def test_kind_gpu_on_a_machine_without_one_is_refused(load_stand_in):
    with pytest.raises(LoadFailed, match="asks for KIND_GPU"):
        load(load_stand_in, modules.Same(), kind="GPU", config_pbtxt="instance_group [ { kind: KIND_GPU } ]")
