"""The onnxruntime stand-in as a whole, with real ONNX Runtime and a fake Triton."""

import numpy as np
import onnxruntime
import pytest
from conch_backend_config import LoadFailed

from tests.fakes import onnx_graphs
from tests.fakes import triton_python_backend_utils as fake

WEIGHT, BIAS = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, -1], np.float32)
AFFINE = {
    "inputs": {"x": ("TYPE_FP32", [3])},
    "outputs": {"y2": ("TYPE_FP32", [2]), "y": ("TYPE_FP32", [2])},
}


@pytest.fixture
def affine(load_stand_in):
    return load_stand_in("onnxruntime", {"model.onnx": onnx_graphs.affine(WEIGHT, BIAS)}, **AFFINE)


def rows(*values):
    return np.array(values, np.float32)


def test_answers_are_those_of_the_model(affine):
    x = rows([1, 2, 3], [4, 5, 6])
    answer = affine.infer(x=x)
    np.testing.assert_array_equal(answer["y"], x @ WEIGHT + BIAS)
    np.testing.assert_array_equal(answer["y2"], 2 * (x @ WEIGHT + BIAS))


def test_outputs_are_asked_for_by_a_list(load_stand_in, monkeypatch):
    """Triton hands their names over as a set, which onnxruntime 1.23 and older do not take."""
    asked, run = [], onnxruntime.InferenceSession.run

    def note(session, names, *rest):
        asked.append(names)
        return run(session, names, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", note)
    load_stand_in("onnxruntime", {"model.onnx": onnx_graphs.affine(WEIGHT, BIAS)}, **AFFINE).infer(x=rows([1, 2, 3]))
    assert [type(names) for names in asked] == [list]


def test_a_gathered_batch_answers_as_single_requests_do(affine):
    requests = [{"x": rows([i, 2, 3])} for i in range(5)]
    together = affine.execute(*requests, outputs=["y"])
    alone = [affine.infer(outputs=["y"], **request) for request in requests]
    np.testing.assert_array_equal([a["y"] for a in together], [a["y"] for a in alone])


def test_the_code_tells_a_wrong_request_from_a_failed_run(load_stand_in):
    table = {"model.onnx": onnx_graphs.lookup(np.arange(3, dtype=np.float32))}
    ends = {"inputs": {"x": ("TYPE_INT64", [1])}, "outputs": {"y": ("TYPE_FP32", [1])}}
    model = load_stand_in("onnxruntime", table, **ends)
    good, beyond, wrong = model.execute({"x": np.array([[2]])}, {"x": np.array([[9]])}, {"x": np.array([[1.0]])})
    assert good["y"].tolist() == [[2]]
    assert beyond.code() == fake.TritonError.INTERNAL
    assert "indices element out of data bounds" in beyond.message()
    assert wrong.code() == fake.TritonError.INVALID_ARG
    assert "input x has the wrong type" in wrong.message()


STRINGS = {"inputs": {"x": ("TYPE_STRING", [2])}, "outputs": {"y": ("TYPE_STRING", [2])}}


def test_strings_go_in_and_come_out(load_stand_in):
    model = load_stand_in("onnxruntime", {"model.onnx": onnx_graphs.identity(8, ("batch", 2))}, **STRINGS)
    texts = np.array([["plain", "한국어"], ["", "x" * 1000]], object)
    assert model.infer(x=texts)["y"].tolist() == [[t.encode() for t in row] for row in texts.tolist()]


def test_a_string_that_is_not_utf8_fails_alone(load_stand_in):
    model = load_stand_in("onnxruntime", {"model.onnx": onnx_graphs.identity(8, ("batch", 2))}, **STRINGS)
    bad, good = model.execute({"x": np.array([[b"a", b"\xff"]], object)}, {"x": np.array([[b"a", b"b"]], object)})
    assert "input x holds a string that is not UTF-8" in bad.message()
    assert good["y"].tolist() == [[b"a", b"b"]]


def test_an_optional_input_takes_the_default_of_the_graph(load_stand_in):
    model = load_stand_in(
        "onnxruntime",
        {"model.onnx": onnx_graphs.add_with_default(rows(10, 20))},
        inputs={},
        input=[
            {"name": "x", "data_type": "TYPE_FP32", "dims": [2]},
            {"name": "bias", "data_type": "TYPE_FP32", "dims": [2], "optional": True},
        ],
        outputs={"y": ("TYPE_FP32", [2])},
        max_batch_size=0,
    )
    assert model.infer(x=rows(1, 2))["y"].tolist() == [11, 22]
    assert model.infer(x=rows(1, 2), bias=rows(3, 3))["y"].tolist() == [4, 5]


def test_a_scalar_has_the_dims_of_the_configuration_outside_and_none_inside(load_stand_in):
    ends = {"inputs": {"x": ("TYPE_INT64", [1])}, "outputs": {"y": ("TYPE_FP32", [2]), "x_again": ("TYPE_INT64", [1])}}
    graph = onnx_graphs.pick_row(rows([0, 1], [2, 3]))
    answer = load_stand_in("onnxruntime", {"model.onnx": graph}, max_batch_size=0, **ends).infer(x=np.array([1]))
    assert answer["y"].tolist() == [2, 3]
    assert answer["x_again"].tolist() == [1]


def test_a_bare_configuration_serves(load_stand_in):
    model = load_stand_in(
        "onnxruntime",
        {"model.onnx": onnx_graphs.identity()},
        inputs={},
        outputs={},
        max_batch_size=0,
    )
    assert model.config["max_batch_size"] == 4
    assert "dynamic_batching" in model.config
    assert model.infer(x=rows([1, 2, 3]))["y"].tolist() == [[1, 2, 3]]


def test_a_full_configuration_is_left_as_it_is(load_stand_in):
    model = load_stand_in(
        "onnxruntime",
        {"model.onnx": onnx_graphs.identity(dims=(None, 3))},
        inputs={"x": ("TYPE_FP32", [-1, 3])},
        outputs={"y": ("TYPE_FP32", [-1, 3])},
        max_batch_size=0,
    )
    assert model.config["max_batch_size"] == 0
    assert "dynamic_batching" not in model.config


def test_another_file_name_is_honoured(load_stand_in):
    model = load_stand_in(
        "onnxruntime",
        {"weights/other.onnx": onnx_graphs.affine(WEIGHT, BIAS), "model.onnx": b"not a graph"},
        default_model_filename="weights/other.onnx",
        **AFFINE,
    )
    assert model.infer(x=rows([0, 0, 0]))["y"].tolist() == [[1, -1]]


def test_a_file_that_is_no_graph_is_refused_in_onnx_runtimes_words(load_stand_in):
    with pytest.raises(LoadFailed, match=r"ONNX Runtime \S+ cannot load .*model.onnx\n(.*\n)*.*[Pp]rotobuf"):
        load_stand_in("onnxruntime", {"model.onnx": b"not a graph"}, **AFFINE)


def test_kind_gpu_on_a_machine_without_one_is_refused(load_stand_in):
    with pytest.raises(LoadFailed, match="asks for KIND_GPU, and this onnxruntime cannot use one"):
        load_stand_in(
            "onnxruntime",
            {"model.onnx": onnx_graphs.affine(WEIGHT, BIAS)},
            kind="GPU",
            config_pbtxt="instance_group [ { kind: KIND_GPU } ]",
            **AFFINE,
        )


def test_a_gpu_that_nobody_asked_for_is_done_without(load_stand_in):
    model = load_stand_in(
        "onnxruntime",
        {"model.onnx": onnx_graphs.affine(WEIGHT, BIAS)},
        kind="GPU",
        config_pbtxt="instance_group [ { kind: KIND_AUTO } ]",
        **AFFINE,
    )
    assert [level for level, text in fake.Logger.lines if "running on the CPU" in text] == ["warning"]
    assert model.infer(x=rows([0, 0, 0]))["y"].tolist() == [[1, -1]]


@pytest.mark.parametrize("ends", [AFFINE, {"inputs": {}, "outputs": {}}])
def test_a_failed_load_has_a_traceback_of_one_frame(load_stand_in, ends):
    # Triton shows the traceback with the message.
    with pytest.raises(LoadFailed) as failure:
        load_stand_in("onnxruntime", {"other.onnx": b""}, **ends)
    own = [entry for entry in failure.traceback if "embedded_backends/onnxruntime" in str(entry.path)]
    assert len(own) == 1
