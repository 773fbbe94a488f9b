from dataclasses import dataclass

import pytest
from conch_backend_config import LoadFailed, read_config
from conch_ort_signature import Signature, Tensor, complete, match, read_signature

from tests.fakes.triton_python_backend_utils import model_config

X = Tensor("x", "TYPE_FP32", (-1, 3))
Y = Tensor("y", "TYPE_FP32", (-1, 2))
MODEL = Signature((X,), (Y,))


@dataclass
class Arg:
    name: str
    type: str
    shape: list


def check(signature=MODEL, *, inputs=None, outputs=None, **more):
    config = model_config(
        inputs={"x": ("TYPE_FP32", [3])} if inputs is None else inputs,
        outputs={"y": ("TYPE_FP32", [2])} if outputs is None else outputs,
        name="m",
        **more,
    )
    return match(read_config(config), signature)


def test_open_sizes_are_read_as_minus_one():
    (x,) = read_signature("m", [Arg("x", "tensor(float)", ["batch", None, 3])], [], []).inputs
    assert x == Tensor("x", "TYPE_FP32", (-1, -1, 3))


@pytest.mark.parametrize(
    ("onnx_type", "word"),
    [("seq(map(int64,tensor(float)))", "zipmap"), ("tensor(bfloat16)", "no BF16"), ("tensor(complex64)", "complex64")],
)
def test_what_triton_cannot_carry_is_refused(onnx_type, word):
    with pytest.raises(LoadFailed, match=word):
        read_signature("m", [], [Arg("y", onnx_type, [1])], [])


def test_what_agrees_is_taken():
    (x,) = check()
    assert (x.name, x.dtype, x.shape, x.optional) == ("x", "float32", (-1, 3), False)


def test_an_input_may_be_declared_narrower_than_the_model_is():
    check(Signature((Tensor("x", "TYPE_FP32", (-1, -1)),), (Y,)), inputs={"x": ("TYPE_FP32", [7])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": {"z": ("TYPE_FP32", [3])}}, ["inputs that the configuration does not name", "x TYPE_FP32 [-1, 3]"]),
        (
            {"inputs": {"x": ("TYPE_FP32", [3]), "z": ("TYPE_FP32", [3])}},
            ["the model has no input z", "x TYPE_FP32 [-1, 3]"],
        ),
        ({"outputs": {"z": ("TYPE_FP32", [2])}}, ["the model has no output z", "y TYPE_FP32 [-1, 2]"]),
        ({"inputs": {"x": ("TYPE_INT64", [3])}}, ["x TYPE_INT64 [-1, 3]", "x TYPE_FP32 [-1, 3]"]),
        ({"outputs": {"y": ("TYPE_FP64", [2])}}, ["y TYPE_FP64 [-1, 2]", "y TYPE_FP32 [-1, 2]"]),
        ({"inputs": {"x": ("TYPE_FP32", [4])}}, ["x TYPE_FP32 [-1, 4]", "x TYPE_FP32 [-1, 3]", "dims: [3]"]),
        ({"inputs": {"x": ("TYPE_FP32", [-1])}}, ["x TYPE_FP32 [-1, -1]", "dims: [3]"]),
        ({"inputs": {"x": ("TYPE_FP32", [3, 1])}}, ["x TYPE_FP32 [-1, 3, 1]", "x TYPE_FP32 [-1, 3]"]),
        ({"outputs": {"y": ("TYPE_FP32", [-1])}}, ["y TYPE_FP32 [-1, -1]", "y TYPE_FP32 [-1, 2]", "dims: [2]"]),
        ({"max_batch_size": 0}, ["x TYPE_FP32 [3]", "x TYPE_FP32 [-1, 3]", "dims: [-1, 3]"]),
    ],
)
def test_what_differs_is_refused_with_both_sides(change, words):
    with pytest.raises(LoadFailed) as failure:
        check(**change)
    assert all(word in str(failure.value) for word in words), str(failure.value)


def test_an_output_must_be_declared_as_wide_as_the_model_is():
    with pytest.raises(LoadFailed, match=r"config.pbtxt y TYPE_FP32 \[-1, 2\](.*\n)*.*model y TYPE_FP32 \[-1, -1\]"):
        check(Signature((X,), (Tensor("y", "TYPE_FP32", (-1, -1)),)))


def test_a_fixed_batch_dimension_is_refused():
    fixed = Signature((Tensor("x", "TYPE_FP32", (1, 3)),), (Y,))
    with pytest.raises(LoadFailed, match=r"max_batch_size: 0 and dims: \[1, 3\], or export with a dynamic batch"):
        check(fixed)


def test_control_tensors_count_as_inputs():
    start = Tensor("START", "TYPE_INT32", (-1, 1))
    inputs = check(Signature((X, start), (Y,)), sequence_batching={"control_input": [{"name": "START"}]})
    assert [i.name for i in inputs] == ["x", "START"]


OPTIONAL = [
    {"name": "x", "data_type": "TYPE_FP32", "dims": [3]},
    {"name": "bias", "data_type": "TYPE_FP32", "dims": [3], "optional": True},
]
WITH_DEFAULT = Signature(
    (Tensor("x", "TYPE_FP32", (3,)),), (Tensor("y", "TYPE_FP32", (2,)),), (Tensor("bias", "TYPE_FP32", (3,)),)
)


def test_an_input_with_a_default_in_the_graph_may_be_optional():
    x, bias = check(WITH_DEFAULT, input=OPTIONAL, max_batch_size=0)
    assert (x.optional, bias.optional) == (False, True)


def test_optional_inputs_and_batches_exclude_each_other_as_in_the_native_backend():
    with pytest.raises(LoadFailed, match="optional input bias is not supported together with batching"):
        check(Signature((X,), (Y,), (Tensor("bias", "TYPE_FP32", (-1, 3)),)), input=OPTIONAL)


def test_an_input_without_a_default_cannot_be_optional():
    with pytest.raises(LoadFailed, match="the graph has no default for it"):
        check(
            Signature((*WITH_DEFAULT.inputs, *WITH_DEFAULT.optional), WITH_DEFAULT.outputs),
            input=OPTIONAL,
            max_batch_size=0,
        )


def test_a_scalar_is_declared_with_ones():
    scalar = Signature((Tensor("x", "TYPE_FP32", ()),), (Tensor("y", "TYPE_FP32", ()),))
    (x,) = check(scalar, inputs={"x": ("TYPE_FP32", [1])}, outputs={"y": ("TYPE_FP32", [1])}, max_batch_size=0)
    assert x.shape == (1,)
    with pytest.raises(LoadFailed, match="is a scalar in the model"):
        check(scalar, inputs={"x": ("TYPE_FP32", [2])}, outputs={"y": ("TYPE_FP32", [1])}, max_batch_size=0)


def test_a_bare_configuration_is_completed():
    made = complete({"name": "m", "input": [], "output": []}, MODEL)
    assert (made.max_batch_size, made.dynamic_batching) == (4, True)
    assert made.inputs == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
    assert made.outputs == [{"name": "y", "data_type": "TYPE_FP32", "dims": [2]}]


def test_what_the_configuration_says_stays():
    given = {"name": "m", "max_batch_size": 16, "input": [{"name": "x"}], "output": [], "dynamic_batching": {}}
    made = complete(given, MODEL)
    assert (made.max_batch_size, made.dynamic_batching, made.inputs) == (None, False, [])
    assert [t["name"] for t in made.outputs] == ["y"]


@pytest.mark.parametrize(("size", "batching"), [(1, False), (2, True)])
def test_the_dynamic_batcher_needs_batches_of_two(size, batching):
    assert complete({"name": "m", "max_batch_size": size}, MODEL).dynamic_batching is batching


def test_a_sequence_batcher_is_left_alone():
    assert not complete({"name": "m", "max_batch_size": 8, "sequence_batching": {}}, MODEL).dynamic_batching


def test_a_graph_that_cannot_batch_is_completed_without():
    fixed = Signature((Tensor("x", "TYPE_FP32", (1, 3)),), (Y,))
    made = complete({"name": "m"}, fixed)
    assert (made.max_batch_size, made.dynamic_batching) == (None, False)
    assert made.inputs[0]["dims"] == [1, 3]
    with pytest.raises(LoadFailed, match=r"max_batch_size 8, and in the model x TYPE_FP32 \[1, 3\]"):
        complete({"name": "m", "max_batch_size": 8}, fixed)


def test_a_tensor_with_nothing_but_a_batch_is_reshaped():
    made = complete({"name": "m"}, Signature((Tensor("x", "TYPE_FP32", (-1,)),), (Y,)))
    assert made.inputs == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}]
