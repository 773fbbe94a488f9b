from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.errors import ConfigError
from conch.model_config import (
    DynamicBatching,
    InstanceGroup,
    ModelConfig,
    ModelSettings,
    build_config,
    parse,
    read_config,
    render,
    selected_versions,
    signature_of,
)
from conch.tensor_spec import DATA_TYPES, ModelSignature, TensorSpec

SIGNATURE = ModelSignature(
    inputs=(TensorSpec("text", "BYTES", (1,)), TensorSpec("mask", "INT64", (-1,), optional=True)),
    outputs=(TensorSpec("embedding", "FP32", (384,)),),
    max_batch_size=8,
)

GOLDEN = """\
name: "minilm"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8
input {
  name: "text"
  data_type: TYPE_STRING
  dims: [1]
}
input {
  name: "mask"
  data_type: TYPE_INT64
  dims: [-1]
  optional: true
}
output {
  name: "embedding"
  data_type: TYPE_FP32
  dims: [384]
}
dynamic_batching {
  max_queue_delay_microseconds: 100
}
instance_group {
  count: 2
  kind: KIND_CPU
}
parameters {
  key: "intra_op_thread_count"
  value {
    string_value: "1"
  }
}
parameters {
  key: "session.x"
  value {
    string_value: "a \\"b\\""
  }
}
"""


def settings(**changes: object) -> ModelSettings:
    defaults = {
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "dynamic_batching": DynamicBatching(max_queue_delay_microseconds=100),
        "instance_groups": (InstanceGroup(count=2),),
        "parameters": {"session.x": 'a "b"', "intra_op_thread_count": "1"},
    }
    return ModelSettings(**(defaults | changes))


def test_the_text_is_what_a_person_would_write() -> None:
    assert render(build_config("minilm", SIGNATURE, settings())) == GOLDEN


def test_the_text_comes_back_as_the_same_message() -> None:
    config = build_config("minilm", SIGNATURE, settings(decoupled=True, response_cache=False, versions=(1, 3)))
    assert parse(render(config)) == config
    assert signature_of(config) == SIGNATURE


def test_the_order_of_parameters_does_not_show() -> None:
    one = build_config("m", SIGNATURE, settings(parameters={"a": "1", "b": "2"}))
    other = build_config("m", SIGNATURE, settings(parameters={"b": "2", "a": "1"}))
    assert render(one) == render(other)


@pytest.mark.parametrize(("level", "text"), [(None, None), (-1, "level: -1"), (1, "level: 1")])
def test_the_graph_level_is_said_only_when_it_is_chosen(level: int | None, text: str | None) -> None:
    rendered = render(build_config("m", SIGNATURE, settings(graph_level=level)))
    assert text in rendered if text else "optimization" not in rendered


def test_no_batching_is_written_out() -> None:
    unbatched = ModelSignature(SIGNATURE.inputs, SIGNATURE.outputs, max_batch_size=0)
    text = render(build_config("m", unbatched, ModelSettings("python")))
    assert "max_batch_size: 0\n" in text
    assert parse(text).max_batch_size == 0


def test_fields_of_the_schema_that_nobody_ordered_are_kept() -> None:
    config = ModelConfig(name="m")
    config.model_warmup.add(name="one", batch_size=1)
    config.model_operations.op_library_filename.append("x.so")
    assert parse(render(config)) == config


def test_dynamic_batching_of_single_items_is_refused() -> None:
    single = ModelSignature(SIGNATURE.inputs, SIGNATURE.outputs, max_batch_size=1)
    with pytest.raises(ConfigError, match="dynamic batching needs batches"):
        build_config("m", single, settings())


def test_a_syntax_error_is_shown_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('name: "m"\nmax_batch_sizes: 4\n', "repo/m/config.pbtxt")
    assert "2:1" in str(caught.value)
    assert "repo/m/config.pbtxt" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not-text"])
def test_an_unreadable_file_is_an_error_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.pbtxt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_config(path)
    assert str(path) in str(caught.value)


specs = st.builds(
    TensorSpec,
    name=st.text(min_size=1, max_size=12),
    datatype=st.sampled_from([row.wire for row in DATA_TYPES]),
    dims=st.lists(st.sampled_from([-1, 1, 7]), max_size=3).map(tuple),
)
tensors = st.lists(specs, max_size=3, unique_by=lambda spec: spec.name).map(tuple)


@given(inputs=tensors, outputs=tensors, size=st.integers(0, 9), parameters=st.dictionaries(st.text(), st.text()))
def test_any_config_survives_its_text(inputs, outputs, size: int, parameters: dict[str, str]) -> None:
    signature = ModelSignature(inputs, outputs, size)
    config = build_config("m", signature, ModelSettings("python", parameters=parameters))
    assert parse(render(config)) == config
    assert signature_of(parse(render(config))) == signature


@pytest.mark.parametrize(
    ("policy", "selected"),
    [
        ("", (10,)),
        ("version_policy { }", (2, 9, 10)),
        ("version_policy { latest { } }", ()),
        ("version_policy { latest { num_versions: 2 } }", (9, 10)),
        ("version_policy { latest { num_versions: 7 } }", (2, 9, 10)),
        ("version_policy { all { } }", (2, 9, 10)),
        ("version_policy { specific { versions: [9, 2, 5] } }", (2, 9)),
        ("version_policy { specific { versions: [5] } }", ()),
    ],
)
def test_the_policy_says_which_versions_are_loaded(policy: str, selected: tuple[int, ...]) -> None:
    assert selected_versions(parse(policy), [10, 2, 9]) == selected
