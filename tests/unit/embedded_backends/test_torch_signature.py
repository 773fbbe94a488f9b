import pytest
from conch_backend_config import LoadFailed, read_config
from conch_torch_settings import TorchSettings, choose_device, ignored_parameters, torch_settings
from conch_torch_signature import STRINGS, TENSOR, TENSOR_DICT, Forward, wire

from tests.fakes.triton_python_backend_utils import model_config

TWO = Forward((("a", TENSOR), ("b", TENSOR)), (TENSOR, TENSOR))


def config(inputs=(), outputs=("y",), datatype="TYPE_FP32", **more):
    return read_config(
        model_config(
            inputs={name: (datatype, [1]) for name in inputs},
            outputs={name: ("TYPE_FP32", [1]) for name in outputs},
            name="m",
            **more,
        )
    )


@pytest.mark.parametrize(
    ("names", "order", "notes"),
    [
        (("b", "a"), ("a", "b"), 0),
        (("INPUT__1", "INPUT__0"), ("INPUT__0", "INPUT__1"), 0),
        (("later__1", "first__0"), ("first__0", "later__1"), 0),
        (("p", "q"), ("p", "q"), 1),
        (("a", "q"), ("a", "q"), 1),
        (("x__one", "x__0"), ("x__one", "x__0"), 1),
    ],
)
def test_inputs_find_their_argument_by_name_index_or_order(names, order, notes):
    wiring = wire(config(names, ("OUTPUT__0",)), TWO)
    assert wiring.inputs == order
    assert len(wiring.notes) == notes


@pytest.mark.parametrize(
    ("names", "places", "notes"),
    [
        (("OUTPUT__1", "OUTPUT__0"), {"OUTPUT__1": 1, "OUTPUT__0": 0}, 0),
        (("OUTPUT__1",), {"OUTPUT__1": 1}, 0),
        (("second", "first"), {"second": 0, "first": 1}, 1),
    ],
)
def test_outputs_find_their_result_by_index_or_order(names, places, notes):
    wiring = wire(config(("a", "b"), names), TWO)
    assert wiring.outputs == places
    assert len(wiring.notes) == notes


def test_a_dict_gets_all_inputs_by_name():
    wiring = wire(config(("q", "p")), Forward((("tensors", TENSOR_DICT),), (TENSOR,)))
    assert wiring.as_dict
    assert wiring.inputs == ("q", "p")


@pytest.mark.parametrize(
    ("made", "forward", "words"),
    [
        (config(("a",)), TWO, ["config.pbtxt 1: a", "model 2: forward(a: Tensor, b: Tensor)"]),
        (config(("X__0", "X__2")), TWO, ["X__0, X__2", "from 0 to 1"]),
        (config(("X__1", "Y__1")), TWO, ["X__1, Y__1", "from 0 to 1 once"]),
        (config(("a", "b"), ("y__2",)), TWO, ["indexes of the outputs", "y__2", "from 0 to 1"]),
        (config(("a", "b"), ("p", "q", "r")), TWO, ["indexes of the outputs", "p, q, r"]),
        (config(()), TWO, ["names no input", "INPUT__0"]),
        (config(("a", "b"), ()), TWO, ["names no output", "OUTPUT__0"]),
        (config(("a",)), Forward((("a", "Optional[Tensor]"),), (TENSOR,)), ["a: Optional[Tensor]"]),
        (config(("a",)), Forward((("a", TENSOR),), (TENSOR_DICT,)), [TENSOR_DICT, "as a tuple"]),
        (config(("a",)), Forward((("a", STRINGS),), (TENSOR,)), ["a TYPE_FP32", "a: List[str]"]),
        (config(("a",), datatype="TYPE_UINT32"), Forward((("a", TENSOR),), (TENSOR,)), ["TYPE_UINT32"]),
        (config(("a",), datatype="TYPE_STRING"), Forward((("a", STRINGS),), (TENSOR,)), ["shape [-1, 1]"]),
        (
            config(("a",), sequence_batching={"control_input": [{"name": "START__1"}]}),
            TWO,
            ["control tensors", "START__1"],
        ),
        (
            config(input=[{"name": "a", "data_type": "TYPE_FP32", "dims": [1], "optional": True}]),
            Forward((("a", TENSOR),), (TENSOR,)),
            ["input a is optional"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides(made, forward, words):
    with pytest.raises(LoadFailed) as failure:
        wire(made, forward)
    assert all(word in str(failure.value) for word in words), str(failure.value)


def test_a_forward_that_does_not_say_what_it_returns_is_taken():
    assert wire(config(("a",), ("y__7",)), Forward((("a", TENSOR),), None)).outputs == {"y__7": 7}


def test_settings_have_the_native_backends_defaults():
    assert torch_settings(config(("a",))) == TorchSettings()


def test_settings_are_read():
    parameters = {
        "INFERENCE_MODE": "false",
        "DISABLE_OPTIMIZED_EXECUTION": "true",
        "ENABLE_CACHE_CLEANING": "1",
        "ENABLE_JIT_PROFILING": "off",
        "ENABLE_JIT_EXECUTOR": "on",
        "ENABLE_TENSOR_FUSER": "false",
        "INTRA_OP_THREAD_COUNT": "3",
        "INTER_OP_THREAD_COUNT": "2",
    }
    assert torch_settings(config(("a",), parameters=parameters)) == TorchSettings(
        inference_mode=False,
        optimized_execution=False,
        cache_cleaning=True,
        jit_profiling=False,
        jit_executor=True,
        tensor_fuser=False,
        intra_op_threads=3,
        inter_op_threads=2,
    )


def test_the_tensor_fuser_is_left_alone_where_nvfuser_is_named():
    made = config(("a",), parameters={"ENABLE_NVFUSER": "false", "ENABLE_TENSOR_FUSER": "false"})
    assert torch_settings(made).tensor_fuser is None


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"parameters": {"ENABLE_NVFUSER": "true"}}, "ENABLE_NVFUSER is ignored"),
        ({"parameters": {"ENABLE_WEIGHT_SHARING": "true"}}, "ENABLE_WEIGHT_SHARING is ignored"),
        ({"instance_group": [{"count": 2}]}, "2 instances without INTRA_OP_THREAD_COUNT"),
    ],
)
def test_what_means_nothing_here_is_told(more, word):
    (note,) = ignored_parameters(config(("a",), **more))
    assert word in note


@pytest.mark.parametrize(
    ("kind", "cuda", "device"),
    [("CPU", True, "cpu"), ("GPU", True, "cuda:1"), ("MODEL", True, None), ("GPU", False, "cpu")],
)
def test_the_device_is_the_instances(kind, cuda, device):
    chosen, warning = choose_device(config(("a",)), kind=kind, gpu_was_asked_for=False, device_id=1, cuda=cuda)
    assert chosen == device
    assert (warning is not None) == (kind == "GPU" and not cuda)


def test_kind_gpu_without_cuda_is_an_error_that_says_so():
    with pytest.raises(LoadFailed, match=r"asks for KIND_GPU, and this torch cannot use one"):
        choose_device(config(("a",)), kind="GPU", gpu_was_asked_for=True, device_id=0, cuda=False)
