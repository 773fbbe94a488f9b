from pathlib import Path

import pytest
from conch_backend_config import LoadFailed, asks_for_gpu, check_numpy, find_model_file, read_config

from tests.fakes.triton_python_backend_utils import model_config

ENDS = {"inputs": {"x": ("TYPE_FP32", [3])}, "outputs": {"y": ("TYPE_FP32", [2])}}


def config(**more):
    return read_config(model_config(**{**ENDS, **more}))


@pytest.mark.parametrize("version", ["2.0.0", "2.4.1", "10.0"])
def test_numpy_2_is_refused_with_the_command_that_mends_it(version):
    with pytest.raises(LoadFailed, match=f"numpy {version}\n(.*\n)*.*pip install 'numpy>=1.26,<2'"):
        check_numpy(version)


def test_numpy_1_is_taken():
    check_numpy("1.26.4")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("ON", True), ("1", True), ("False", False), ("off", False), ("0", False)]
)
def test_booleans_are_read_as_triton_reads_them(text, value):
    assert config(parameters={"flag": text}).boolean("flag", None) is value


def test_an_absent_parameter_has_the_default():
    assert config().boolean("flag", None) is None
    assert config().integer("count", 7) == 7


@pytest.mark.parametrize("read", ["boolean", "integer"])
def test_a_parameter_of_the_wrong_kind_is_named(read):
    with pytest.raises(LoadFailed, match=r"parameter p (.*\n)*.*'maybe'"):
        getattr(config(parameters={"p": "maybe"}), read)("p", 0)


def test_the_models_own_shape_is_that_of_the_reshape():
    read = config(input=[{"name": "x", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}])
    assert read.inputs[0].dims == ()
    assert read.inputs[0].shape(batched=True) == (-1,)


def test_optimization_is_read():
    accelerator = {"name": "openvino", "parameters": {"num_of_threads": "2"}}
    optimization = {
        "graph": {"level": -1},
        "execution_accelerators": {"cpu_execution_accelerator": [accelerator], "gpu_execution_accelerator": []},
    }
    read = config(optimization=optimization)
    assert read.graph_level == -1
    assert [(a.name, dict(a.parameters)) for a in read.cpu_accelerators] == [("openvino", {"num_of_threads": "2"})]
    assert read.gpu_accelerators == ()


def test_instances_are_counted_over_the_groups():
    assert config(instance_group=[{"count": 2}, {"count": 3}]).instance_count == 5


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"batch_input": [{"kind": "BATCH_ELEMENT_COUNT"}]}, "batch_input"),
        ({"sequence_batching": {"state": [{"input_name": "s"}]}}, "sequence_batching.state"),
        ({"model_transaction_policy": {"decoupled": True}}, "decoupled"),
        (
            {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3], "allow_ragged_batch": True}]},
            "allow_ragged_batch",
        ),
    ],
)
def test_what_only_the_native_backends_do_is_refused(more, named):
    with pytest.raises(LoadFailed, match=f"{named} does not work in the embedded server"):
        config(**more)


def test_bf16_is_refused_as_the_native_backends_do():
    with pytest.raises(LoadFailed, match=r"tensor x has a type(.*\n)*.*TYPE_BF16"):
        config(inputs={"x": ("TYPE_BF16", [3])})


@pytest.mark.parametrize(
    ("name", "path"), [("", "model.onnx"), ("other.onnx", "other.onnx"), ("folder", "folder/model.onnx")]
)
def test_the_model_file_is_found(tmp_path, name, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).touch()
    assert find_model_file(tmp_path, config(default_model_filename=name), "model.onnx") == tmp_path / path


def test_a_missing_model_file_shows_what_is_there(tmp_path):
    (tmp_path / "weights.onnx").touch()
    with pytest.raises(LoadFailed, match=r"got:\s+weights.onnx\n.*expected:.*model.onnx\n.*default_model_filename"):
        find_model_file(tmp_path, config(), "model.onnx")


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("instance_group [ { kind: KIND_GPU count: 1 } ]", True),
        ("instance_group [ { kind: KIND_AUTO } ]", False),
        ("# KIND_GPU would be nice", False),
        ("", False),
        ("this is { no config", True),
    ],
)
def test_an_explicit_kind_gpu_is_told_from_one_that_triton_chose(tmp_path, text, asks):
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    assert asks_for_gpu(path) is asks


def test_without_a_config_file_nobody_asked_for_a_gpu(tmp_path):
    assert not asks_for_gpu(tmp_path / "config.pbtxt")


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("name", ["conch_backend_config.py", "conch_batching.py"])
def test_both_backends_hold_the_same_shared_files(backend, name):
    stand_ins = Path(__file__).parents[3] / "server" / "embedded_backends"
    assert (stand_ins / backend / name).resolve() == stand_ins / "shared" / name
