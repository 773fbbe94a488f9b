import dataclasses

import pytest

from conch.errors import ConfigError
from conch.model_config import parse, render
from conch.pipeline import Pipeline, Step
from conch.tensor_spec import ModelSignature, TensorSpec

TEXT = TensorSpec("text", "BYTES", (1,))
IDS = TensorSpec("input_ids", "INT64", (-1,))
MASK = TensorSpec("attention_mask", "INT64", (-1,))
LOGITS = TensorSpec("logits", "FP32", (2,))
LABEL = TensorSpec("label", "BYTES", (1,))
SCORES = TensorSpec("scores", "FP32", (2,))

PREPROCESS = Step("p_preprocess", ModelSignature((TEXT,), (IDS, MASK), 16))
MODEL = Step("p_model", ModelSignature((IDS, MASK), (LOGITS,), 8))
POSTPROCESS = Step("p_postprocess", ModelSignature((LOGITS,), (LABEL, SCORES), 32))
PIPELINE = Pipeline("p", (TEXT,), ("label",), (PREPROCESS, MODEL, POSTPROCESS))


def test_the_ensemble_takes_its_signature_from_its_members() -> None:
    assert PIPELINE.signature() == ModelSignature((TEXT,), (LABEL,), 8)


def test_the_config_wires_every_edge() -> None:
    config = parse(render(PIPELINE.config()))
    assert config.platform == "ensemble"
    assert config.max_batch_size == 8
    steps = config.ensemble_scheduling.step
    assert [s.model_name for s in steps] == ["p_preprocess", "p_model", "p_postprocess"]
    assert {s.model_version for s in steps} == {-1}
    assert dict(steps[1].input_map) == {"input_ids": "input_ids", "attention_mask": "attention_mask"}


def test_an_output_that_nobody_needs_is_not_mapped() -> None:
    assert dict(PIPELINE.config().ensemble_scheduling.step[2].output_map) == {"label": "label"}


def test_a_renamed_tensor_is_public_under_its_new_name() -> None:
    step = dataclasses.replace(MODEL, output_map={"logits": "embedding"})
    pipeline = Pipeline("p", (TEXT,), ("embedding",), (PREPROCESS, step))
    assert pipeline.signature().outputs == (TensorSpec("embedding", "FP32", (2,)),)
    assert dict(pipeline.config().ensemble_scheduling.step[1].output_map) == {"logits": "embedding"}


def test_an_optional_input_may_stay_unwired() -> None:
    hint = TensorSpec("hint", "FP32", (1,), optional=True)
    step = Step("p_model", ModelSignature((IDS, MASK, hint), (LOGITS,), 8))
    config = Pipeline("p", (TEXT,), ("logits",), (PREPROCESS, step)).config()
    assert "hint" not in config.ensemble_scheduling.step[1].input_map


def with_step(index: int, **changes: object) -> Pipeline:
    steps = list(PIPELINE.steps)
    steps[index] = dataclasses.replace(steps[index], **changes)
    return dataclasses.replace(PIPELINE, steps=tuple(steps))


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        (
            with_step(2, input_map={"logits": "logit"}),
            ["nothing writes tensor logit", "p_postprocess.logits", "map logits to logits"],
        ),
        (
            with_step(2, signature=ModelSignature((TensorSpec("logits", "FP32", (3,)),), (LABEL,), 8)),
            ["changes on its way", "p_model -> p_postprocess.logits", "[batch, 2]", "[batch, 3]"],
        ),
        (
            with_step(2, signature=ModelSignature((TensorSpec("logits", "FP16", (2,)),), (LABEL,), 8)),
            ["changes on its way", "FP32", "FP16"],
        ),
        (with_step(2, output_map={"scores": "logits"}), ["logits is written twice", "p_model and p_postprocess"]),
        (with_step(1, input_map={"ids": "input_ids"}), ["p_model has no input ids"]),
        (
            with_step(1, signature=ModelSignature((IDS, MASK), (LOGITS,), 0)),
            ["with and without a batch dimension", "p_preprocess and p_model"],
        ),
        (dataclasses.replace(PIPELINE, outputs=("labels",)), ["no step writes output labels"]),
        (dataclasses.replace(PIPELINE, inputs=(TEXT, LOGITS)), ["logits is written twice"]),
        (
            dataclasses.replace(PIPELINE, inputs=(TEXT, TensorSpec("lang", "BYTES", (1,)))),
            ["no step reads input lang"],
        ),
        (dataclasses.replace(PIPELINE, steps=()), ["has no steps"]),
    ],
)
def test_wrong_wiring_is_refused_with_the_edge(pipeline: Pipeline, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline.config()
    assert [part for part in says if part not in str(caught.value)] == []
