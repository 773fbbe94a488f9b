"""What export writes, served by the real Triton: the numbers are the source's, and what does not work stays out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import Client, text
from conch.errors import InvalidInput, ParityError, ServerError
from conch.manifest import tensor_from_json
from conch.repository import Repository
from conch.tensor_spec import ModelSignature, TensorSpec
from export import from_onnx, from_torch, steps
from export.from_torch_target import Loaded
from export.options import ExportOptions
from export.source import PipelineParts, PythonPart, Source
from tests.fakes import tiny_onnx

pytestmark = pytest.mark.integration


def tiny_net() -> Any:
    """tokens INT64 [batch, any], weight FP32 [batch, any] -> logits FP32 [batch, 3]."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(50, 8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, tokens: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head((self.table(tokens) * weight.unsqueeze(-1)).mean(1))}

    torch.manual_seed(0)
    return Net()


def example(rows: int, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(length)
    tokens = generator.integers(0, 50, (rows, length))
    return {"tokens": tokens, "weight": generator.random((rows, length)).astype(np.float32)}


@pytest.mark.parametrize("format_", ["onnx", "torchscript"])
def test_a_torch_module_answers_as_itself(format_: str, triton: Any) -> None:
    name = f"core_net_{format_}"
    options = ExportOptions(
        name, repository=triton.repository, format=format_, max_batch_size=8, instances=2, trial=False
    )
    loaded = Loaded(tiny_net(), (example(2, 6), example(1, 9)), {}, {"kind": "torch"})
    source = from_torch.build(loaded, options)
    steps.run(source, options)
    triton.load(name)
    with Client(triton.grpc_url) as client:
        for asked in (example(1, 5), example(3, 5), example(8, 12)):
            served = client.infer(name, asked)
            np.testing.assert_allclose(served["logits"], source.reference(asked)["logits"], atol=1e-5)
        with pytest.raises(InvalidInput, match="batch"):
            client.infer(name, example(9, 5))


def test_an_onnx_file_with_external_data_is_served(triton: Any, tmp_path: Path) -> None:
    path = tiny_onnx.save(tiny_onnx.linear(), tmp_path / "big.onnx", external=True)
    options = ExportOptions("core_external", repository=triton.repository, max_batch_size=8, trial=False)
    steps.run(from_onnx.load(path, options), options)
    triton.load("core_external")
    x = np.ones((3, 4), np.float32)
    with Client(triton.http_url) as client:
        np.testing.assert_allclose(client.infer("core_external", x=x)["y"], x @ tiny_onnx.WEIGHTS, atol=1e-5)


@pytest.fixture
def options(tmp_path: Path) -> ExportOptions:
    return ExportOptions("tiny", repository=tmp_path / "models", max_batch_size=8)


def labelled(tmp_path: Path, labels: bytes = b"a\nb\nc\n") -> Source:
    """`tiny_onnx.linear`, its y turned into labels by the classify backend; the reference is numpy's softmax."""
    out = (TensorSpec("label", "BYTES", (1,)), TensorSpec("score", "FP32", (1,)), TensorSpec("scores", "FP32", (3,)))
    part = PythonPart(
        role="postprocess",
        backend="classify",
        signature=ModelSignature((TensorSpec("logits", "FP32", (3,)),), out, 8),
        parameters={"activation": "softmax"},
        assets={"labels.txt": labels},
    )

    def reference(request: Any) -> dict[str, np.ndarray]:
        powers = np.exp(request["x"] @ tiny_onnx.WEIGHTS)
        scores = powers / powers.sum(axis=1, keepdims=True)
        names = np.array(["a", "b", "c"], dtype=object)[scores.argmax(axis=1)]
        return {"label": names[:, None], "score": scores.max(axis=1, keepdims=True), "scores": scores}

    rows = np.random.default_rng(5).normal(size=(4, 1, 4)).astype(np.float32)
    parts = PipelineParts(
        inputs=(TensorSpec("x", "FP32", (4,)),),
        outputs=("label", "score", "scores"),
        requests=[{"x": row} for row in rows],
        postprocess=part,
        model_output_map={"y": "logits"},
        reference=reference,
    )
    return replace(tiny_onnx.source(tmp_path), pipeline=parts)


def test_the_trial_asks_the_pipeline_and_keeps_its_answers(tmp_path: Path, options: ExportOptions) -> None:
    source = labelled(tmp_path)
    report = steps.run(source, options)
    assert report.trial == "loaded in Triton, 4 requests answered"
    assert [row.output for row in report.served_parity] == ["label", "score", "scores"]
    manifest = Repository(options.repository).manifest("tiny", 1)
    assert manifest is not None
    assert len(manifest.golden) == 3
    asked = {"x": tensor_from_json(manifest.golden[0].inputs["x"])}
    kept = {name: tensor_from_json(tensor) for name, tensor in manifest.golden[0].outputs.items()}
    assert source.pipeline is not None
    assert source.pipeline.reference is not None
    due = source.pipeline.reference(asked)
    assert text(kept["label"]).tolist() == due["label"].tolist()
    np.testing.assert_allclose(kept["scores"], due["scores"], atol=1e-5)


def test_a_version_that_does_not_load_stays_out(tmp_path: Path, options: ExportOptions) -> None:
    with pytest.raises(ServerError, match="tiny_postprocess"):
        steps.run(labelled(tmp_path, labels=b"a\nb\n\xff\xfe"), options)
    assert list(options.repository.iterdir()) == []


def test_a_pipeline_that_answers_otherwise_stays_out(tmp_path: Path, options: ExportOptions) -> None:
    with pytest.raises(ParityError, match="output label") as raised:
        steps.run(labelled(tmp_path, labels=b"c\nb\na\n"), options)
    assert raised.value.got != raised.value.expected
    assert list(options.repository.iterdir()) == []
