"""The pytorch stand-in inside the real Triton."""

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from conch.errors import ModelLoadError
from conch.tensor_spec import data_type
from tests.fakes import torchscript_modules as modules
from tests.integration.backend_asks import batch_sizes, infer, together

pytestmark = pytest.mark.integration

TYPES = ["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
# One thread: the test machine is small, and other tests run on it.
HEAD = """
    backend: "pytorch"
    max_batch_size: 8
    instance_group { count: 1 kind: KIND_CPU }
    parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }
"""
# A run starts as soon as four requests wait, or late: what is sent together runs together.
GATHER_FOUR = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 3000000 }\n"


def tensors(kind, **types):
    """Config text: tensors of one element an item, ``name=type``."""
    return "".join(f'{kind} {{ name: "{name}" data_type: TYPE_{t} dims: [ 1 ] }}\n' for name, t in types.items())


@pytest.fixture(scope="module")
def add(triton):
    """A function (name, config, module); what was added is unloaded after the module, as each instance is a process."""
    added = []

    def add_model(name, config, module, file="model.pt"):
        triton.add(name, HEAD + config, {file: module})
        added.append(name)

    yield add_model
    for name in added:
        triton.unload(name)


@pytest.fixture(scope="module")
def client(triton):
    with grpcclient.InferenceServerClient(triton.grpc_url.removeprefix("grpc://")) as client:
        yield client


def column(*values):
    return "FP32", np.array(values, np.float32).reshape(-1, 1)


@pytest.mark.parametrize(("name", "a", "b"), [("torch_named", "a", "b"), ("torch_indexed", "INPUT__0", "INPUT__1")])
def test_both_ways_of_naming_find_the_same_arguments(add, client, name, a, b):
    outputs = tensors("output", OUTPUT__1="FP32", OUTPUT__0="FP32")
    add(name, tensors("input", **{b: "FP32", a: "FP32"}) + outputs, modules.scripted(modules.Combine()))
    result = infer(client, name, {b: column(10, 20), a: column(1, 2)})
    assert result.as_numpy("OUTPUT__0").tolist() == [[21], [42]]
    assert result.as_numpy("OUTPUT__1").tolist() == [[-9], [-18]]


@pytest.fixture(scope="module")
def round_trip(add, client):
    """One request to a module that returns what it gets, with a tensor of every type."""
    inputs = tensors("input", **{f"x__{i}": wire for i, wire in enumerate(TYPES)})
    outputs = tensors("output", **{f"y__{i}": wire for i, wire in enumerate(TYPES)})
    add("torch_types", inputs + outputs, modules.scripted(modules.NineSame()))
    sent = [np.array([[0], [1], [7]]).astype(data_type(wire).numpy) for wire in TYPES]
    asked = {f"x__{i}": (wire, sent[i]) for i, wire in enumerate(TYPES)}
    result = infer(client, "torch_types", asked)
    return sent, [result.as_numpy(f"y__{i}") for i in range(len(TYPES))]


@pytest.mark.parametrize("index", range(len(TYPES)), ids=TYPES)
def test_every_type_comes_back_as_it_went(round_trip, index):
    sent, received = round_trip
    assert received[index].dtype == sent[index].dtype
    np.testing.assert_array_equal(received[index], sent[index])


def test_a_gathered_batch_answers_as_torch_does_directly(add, client):
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    dims = 'input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }'
    add("torch_linear", dims + GATHER_FOUR, modules.traced_linear(weight))
    rows = np.random.default_rng(1).normal(size=(4, 1, 3)).astype(np.float32)
    answers = together(client, "torch_linear", [{"x": ("FP32", row)} for row in rows])
    assert batch_sizes(client, "torch_linear", 4) == {4}
    due = torch.nn.functional.linear(torch.from_numpy(np.concatenate(rows)), weight).numpy()
    # The batch runs in the order in which the requests came, and blocks of a product may be summed otherwise.
    np.testing.assert_allclose(np.concatenate([a.as_numpy("y") for a in answers]), due, rtol=1e-6, atol=1e-6)


def test_a_bad_request_of_a_gathered_batch_fails_alone(add, client):
    ends = tensors("input", x="INT64") + tensors("output", y="FP32")
    add("torch_lookup", ends + GATHER_FOUR, modules.scripted(modules.Lookup()))
    answers = together(client, "torch_lookup", [{"x": ("INT64", np.array([[i]]))} for i in (1, 2, 99, 0)])
    assert batch_sizes(client, "torch_lookup", 4) == {4}
    bad = answers.pop(2)
    assert [answer.as_numpy("y").tolist() for answer in answers] == [[[1]], [[2]], [[0]]]
    assert isinstance(bad, InferenceServerException)
    assert "99 is out of" in bad.message()
    assert "x INT64 [1, 1]" in bad.message()


def test_strings_and_a_file_of_another_name(add, client):
    text = "data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] }"
    config = (
        f'input {{ name: "texts" {text} }} output {{ name: "loud__0" {text} }}\n'
        + tensors("input", x="FP32")
        + tensors("output", same__1="FP32")
        + 'default_model_filename: "weights.pt"'
    )
    add("torch_strings", config, modules.scripted(modules.Shout()), "weights.pt")
    texts = np.array([["hey"], ["한국어"]], dtype=np.object_)
    result = infer(client, "torch_strings", {"texts": ("BYTES", texts), "x": column(1, 2)})
    assert [text.decode() for text in result.as_numpy("loud__0").ravel()] == ["hey!", "한국어!"]
    assert result.as_numpy("same__1").tolist() == [[1], [2]]


def test_what_cannot_be_served_says_why(add):
    with pytest.raises(ModelLoadError) as failure:
        add("torch_short", "", modules.scripted(modules.Same()))
    assert all(word in str(failure.value) for word in ("names no input", "forward(x: Tensor) -> Tensor"))
