"""The onnxruntime stand-in inside the real Triton."""

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from conch.errors import ModelLoadError
from conch.tensor_spec import DATA_TYPES
from tests.fakes import onnx_graphs
from tests.integration.backend_asks import batch_sizes, infer, together

pytestmark = pytest.mark.integration

TYPES = [t for t in DATA_TYPES if t.wire != "BF16"]  # the native backend has no BF16: see the test of its refusal
WEIGHT = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
BIAS = np.array([0.5, -0.5], np.float32)
AFFINE = onnx_graphs.affine(WEIGHT, BIAS)
AFFINE_CONFIG = """
    backend: "onnxruntime"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }
    output [ { name: "y2" data_type: TYPE_FP32 dims: [ 2 ] }, { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
    instance_group { count: 1 kind: KIND_CPU }
"""
# A run starts as soon as four requests wait, or late: what is sent together runs together.
GATHER_FOUR = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 3000000 }"


@pytest.fixture(scope="module")
def add(triton):
    """Triton's `add`; what was added is unloaded after the module, as each instance is a process."""
    added = []

    def add_model(name, *args):
        triton.add(name, *args)
        added.append(name)

    yield add_model
    for name in added:
        triton.unload(name)


@pytest.fixture(scope="module")
def client(triton):
    with grpcclient.InferenceServerClient(triton.grpc_url.removeprefix("grpc://")) as client:
        yield client


@pytest.fixture(scope="module")
def affine(add):
    add("ort_affine", AFFINE_CONFIG + GATHER_FOUR, {"model.onnx": AFFINE})
    return "ort_affine"


@pytest.fixture(scope="module")
def round_trip(add, client):
    """One request to a graph with an input and an output of every type: what went in, and what came out."""
    tensors = {t.wire: t for t in TYPES}
    config = 'backend: "onnxruntime"\nmax_batch_size: 4\n' + "".join(
        f'{kind} {{ name: "{kind}_{wire}" data_type: {t.config} dims: [ -1 ] }}\n'
        for kind in ("input", "output")
        for wire, t in tensors.items()
    )
    add("ort_types", config, {"model.onnx": onnx_graphs.identities({w: t.onnx for w, t in tensors.items()})})
    sent = {wire: np.array([[0, 1, 7], [3, 0, 1]]).astype(t.numpy) for wire, t in tensors.items()}
    sent["BYTES"] = np.array([[b"plain", "한국어".encode(), b""], [b"x" * 300, b" ", b"\n"]], dtype=np.object_)
    result = infer(client, "ort_types", {f"input_{wire}": (wire, array) for wire, array in sent.items()})
    return sent, {wire: result.as_numpy(f"output_{wire}") for wire in tensors}


@pytest.mark.parametrize("wire", [t.wire for t in TYPES])
def test_every_type_comes_back_as_it_went(round_trip, wire):
    sent, received = round_trip
    assert received[wire].dtype == sent[wire].dtype
    np.testing.assert_array_equal(received[wire], sent[wire])


def test_bf16_is_refused_when_the_model_is_loaded(add):
    with pytest.raises(ModelLoadError, match="the native onnxruntime backend has no BF16 either"):
        add("ort_bf16", 'backend: "onnxruntime"', {"model.onnx": onnx_graphs.identity(16)})


def test_a_gathered_batch_answers_as_onnx_runtime_does_directly(affine, client):
    rows = np.random.default_rng(1).normal(size=(4, 1, 3)).astype(np.float32)
    answers = together(client, affine, [{"x": ("FP32", row)} for row in rows])
    session = onnxruntime.InferenceSession(AFFINE, providers=["CPUExecutionProvider"])
    due = session.run(["y", "y2"], {"x": np.concatenate(rows)})
    assert 4 in batch_sizes(client, affine, 4)
    for name, values in zip(("y", "y2"), due, strict=True):
        np.testing.assert_array_equal(np.concatenate([a.as_numpy(name) for a in answers]), values)


def test_only_the_requested_outputs_are_sent(affine, client):
    x = np.ones((4, 3), np.float32)
    result = infer(client, affine, {"x": ("FP32", x)}, outputs=["y2"])
    assert [output.name for output in result.get_response().outputs] == ["y2"]
    np.testing.assert_allclose(result.as_numpy("y2"), 2 * (x @ WEIGHT + BIAS), rtol=1e-6)


@pytest.mark.parametrize(
    ("wire", "array", "words"),
    [
        ("FP32", np.zeros((1, 4), np.float32), ["'x'", r"[-1,3]", r"[1,4]"]),
        ("FP64", np.zeros((1, 3)), ["'x'", "FP64", "FP32"]),
    ],
)
def test_what_contradicts_the_configuration_never_reaches_the_batch(affine, client, wire, array, words):
    with pytest.raises(InferenceServerException) as failure:
        infer(client, affine, {"x": (wire, array)})
    assert all(word in str(failure.value) for word in words), str(failure.value)


def test_a_bad_request_of_a_gathered_batch_fails_alone(add, client):
    config = """
        backend: "onnxruntime"
        max_batch_size: 8
        input { name: "x" data_type: TYPE_INT64 dims: [ 1 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
        instance_group { count: 1 kind: KIND_CPU }
    """
    graph = onnx_graphs.lookup(np.array([0, 10, 20, 30], np.float32))
    add("ort_lookup", config + GATHER_FOUR, {"model.onnx": graph})
    answers = together(client, "ort_lookup", [{"x": ("INT64", np.array([[i]]))} for i in (1, 2, 99, 3)])
    assert batch_sizes(client, "ort_lookup", 4) == {4}
    bad = answers.pop(2)
    assert [answer.as_numpy("y").tolist() for answer in answers] == [[[10]], [[20]], [[30]]]
    assert isinstance(bad, InferenceServerException)
    assert "idx=99" in bad.message()
    assert "x INT64 [1, 1]" in bad.message()


@pytest.mark.parametrize("config", ['backend: "onnxruntime"', ""])
def test_a_configuration_left_short_is_completed(add, client, config):
    name = "ort_short" if config else "ort_shorter"
    add(name, config, {"model.onnx": AFFINE})
    completed = client.get_model_config(name).config
    assert completed.max_batch_size == 4
    assert completed.HasField("dynamic_batching")
    assert [(t.name, list(t.dims)) for t in completed.input] == [("x", [3])]
    assert [(t.name, list(t.dims)) for t in completed.output] == [("y", [2]), ("y2", [2])]
    assert infer(client, name, {"x": ("FP32", np.zeros((1, 3), np.float32))}).as_numpy("y").tolist() == [[0.5, -0.5]]


def test_a_tensor_with_nothing_but_a_batch_is_completed_with_a_reshape(add, client):
    add("ort_flat", 'backend: "onnxruntime"', {"model.onnx": onnx_graphs.identity(dims=["batch"])})
    x = np.array([[1], [2]], np.float32)
    np.testing.assert_array_equal(infer(client, "ort_flat", {"x": ("FP32", x)}).as_numpy("y"), x)


def test_settings_of_the_native_backend_are_taken(triton, add, client):
    config = """
        default_model_filename: "weights.onnx"
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        parameters { key: "inter_op_thread_count" value { string_value: "1" } }
        parameters { key: "execution_mode" value { string_value: "1" } }
        parameters { key: "enable_mem_arena" value { string_value: "0" } }
        parameters { key: "enable_mem_pattern" value { string_value: "0" } }
        optimization {
            graph { level: 1 }
            execution_accelerators { cpu_execution_accelerator { name: "openvino" } }
        }
    """
    add("ort_settings", AFFINE_CONFIG + config, {"weights.onnx": AFFINE})
    y = infer(client, "ort_settings", {"x": ("FP32", np.zeros((1, 3), np.float32))}).as_numpy("y")
    assert y.tolist() == [[0.5, -0.5]]
    available = onnxruntime.get_available_providers()
    told = "execution accelerator openvino is ignored" in triton.server.log_path.read_text()
    assert told is ("OpenVINOExecutionProvider" not in available)


def test_an_optional_input_may_be_left_out(add, client):
    config = """
        backend: "onnxruntime"
        max_batch_size: 0
        input [
            { name: "x" data_type: TYPE_FP32 dims: [ 2 ] },
            { name: "bias" data_type: TYPE_FP32 dims: [ 2 ] optional: true }
        ]
        output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
    """
    default = np.array([10, 20], np.float32)
    add("ort_optional", config, {"model.onnx": onnx_graphs.add_with_default(default)})
    x = {"x": ("FP32", np.array([1, 2], np.float32))}
    bias = {"bias": ("FP32", np.array([3, 3], np.float32))}
    assert infer(client, "ort_optional", x).as_numpy("y").tolist() == [11, 22]
    assert infer(client, "ort_optional", {**x, **bias}).as_numpy("y").tolist() == [4, 5]


@pytest.mark.parametrize(
    ("case", "config", "words"),
    [
        ("dims", AFFINE_CONFIG.replace("[ 3 ]", "[ 4 ]"), ["x TYPE_FP32 [-1, 4]", "x TYPE_FP32 [-1, 3]"]),
        ("type", AFFINE_CONFIG.replace("FP32 dims: [ 3 ]", "INT32 dims: [ 3 ]"), ["x TYPE_INT32", "x TYPE_FP32"]),
        ("name", AFFINE_CONFIG.replace('"y2"', '"z"'), ["no output z", "y TYPE_FP32 [-1, 2]"]),
        ("file", AFFINE_CONFIG + 'default_model_filename: "other.onnx"', ["other.onnx", "model.onnx"]),
        ("gpu", AFFINE_CONFIG.replace("KIND_CPU", "KIND_GPU"), ["KIND_GPU"]),
    ],
)
def test_what_cannot_be_served_says_why(add, case, config, words):
    with pytest.raises(ModelLoadError) as failure:
        add(f"ort_bad_{case}", config, {"model.onnx": AFFINE})
    assert all(word in str(failure.value) for word in words), str(failure.value)
