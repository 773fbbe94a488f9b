from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from conch.errors import ExportError, UntrustedSource  # noqa: E402
from export import from_torch, from_torch_target, steps  # noqa: E402
from export.options import ExportOptions  # noqa: E402

TEXT_MODEL = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, tokens, weight):
        hidden = self.table(tokens) * weight.unsqueeze(-1)
        return {"logits": self.head(hidden.mean(1)), "hidden": hidden}


def build():
    torch.manual_seed(0)
    return Net(), {"tokens": torch.randint(0, 50, (1, 6)), "weight": torch.rand(1, 6)}, {"tokens": (1,), "weight": (1,)}


def build_from_two_samples():
    module, example, _ = build()
    longer = {"tokens": torch.randint(0, 50, (2, 9)), "weight": torch.rand(2, 9)}
    return module, [example, longer]


def build_misnamed():
    module, example, dynamic = build()
    return module, {"token": example["tokens"], "weight": example["weight"]}


def build_nothing():
    return Net()


def build_badly():
    raise RuntimeError("no weights here")


class Frozen(torch.nn.Module):
    def forward(self, x):
        return x.reshape(2, 4).sum(1, keepdim=True)


def build_frozen():
    return Frozen(), {"x": torch.rand(2, 4)}


class Scalar(torch.nn.Module):
    def forward(self, x):
        return x.sum()


def build_scalar():
    return Scalar(), {"x": torch.rand(2, 4)}


class TracedConstant(torch.nn.Module):
    def forward(self, x):
        return x + torch.zeros(int(x.shape[0]), 4) if torch.jit.is_tracing() else x


def build_in_bfloat16():
    return TracedConstant(), {"x": torch.rand(2, 4).bfloat16()}


def build_traced_constant():
    return TracedConstant(), {"x": torch.rand(2, 4)}
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportOptions:
    (tmp_path / "user_text_model.py").write_text(TEXT_MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "user_text_model", raising=False)
    return ExportOptions("net", repository=tmp_path / "models", max_batch_size=8, trial=False)


def specs(source: object) -> dict[str, tuple[str, tuple[int, ...]]]:
    signature = source.signature  # type: ignore[attr-defined]
    return {t.name: (t.datatype, t.dims) for t in (*signature.inputs, *signature.outputs)}


SPECS = {
    "tokens": ("INT64", (-1,)),
    "weight": ("FP32", (-1,)),
    "logits": ("FP32", (3,)),
    "hidden": ("FP32", (-1, 8)),
}


@pytest.mark.parametrize("factory", ["build", "build_from_two_samples"])
def test_the_signature_is_found_by_running(factory: str, options: ExportOptions) -> None:
    assert specs(from_torch.load(f"user_text_model:{factory}", options)) == SPECS


def test_dynamic_axes_can_be_given_on_the_command_line(options: ExportOptions) -> None:
    source = from_torch.load("user_text_model:build_traced_constant", options, dynamic=["x:1"])
    assert specs(source) == {"x": ("FP32", (-1,)), "output": ("FP32", (-1,))}


def test_a_dynamic_onnx_file_runs_with_any_batch_and_length(options: ExportOptions) -> None:
    source = from_torch.load("user_text_model:build", options)
    report = steps.run(source, options)
    graph = onnx.load(str(report.path / "model.onnx")).graph
    first = graph.input[0].type.tensor_type.shape.dim
    assert [bool(d.dim_param) for d in first] == [True, True]
    assert str(Path(from_torch.__file__).parents[1]).encode() not in (report.path / "model.onnx").read_bytes()
    assert {row.output: row.largest_difference < 1e-5 for row in report.parity} == {"logits": True, "hidden": True}


def test_torchscript_keeps_the_names_of_forwards_arguments(options: ExportOptions) -> None:
    chosen = replace(options, format="torchscript")
    report = steps.run(from_torch.load("user_text_model:build", chosen, outputs=["logits"]), chosen)
    module = torch.jit.load(str(report.path / "model.pt"))
    assert [argument.name for argument in module.forward.schema.arguments] == ["self", "tokens", "weight"]
    config = (options.repository / "net" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "pytorch"' in config
    assert '"hidden"' not in config


def test_outputs_can_be_renamed(options: ExportOptions) -> None:
    source = from_torch.load("user_text_model:build", options, outputs=["scores", "vectors"])
    assert [t.name for t in source.signature.outputs] == ["scores", "vectors"]
    assert set(source.reference(source.samples[0])) == {"scores", "vectors"}


@pytest.mark.parametrize(
    ("target", "message", "fix"),
    [
        ("user_text_model:bild", "has no bild", "did you mean build?"),
        ("user_text_modul:build", "no module user_text_modul", "run conch in the folder that holds it"),
        ("user_text_model", "names no model", None),
        ("user_text_model:build_misnamed", "no argument token", "did you mean tokens?"),
        ("user_text_model:build_nothing", "returned something else", None),
        ("user_text_model:build_badly", "the factory failed", "--debug"),
        ("user_text_model:build_scalar", "no batch dimension", None),
        ("user_text_model:build_frozen", "the module itself fails", "--max-batch-size 0"),
        ("user_text_model:build_in_bfloat16", "works in bfloat16", "module.float()"),
        ("nowhere.pt", "no such file", None),
    ],
)
def test_what_cannot_be_exported_is_said(target: str, message: str, fix: str | None, options: ExportOptions) -> None:
    with pytest.raises(ExportError, match=message) as raised:
        from_torch.load(target, options)
    assert fix is None or fix in str(raised.value.fix)


def test_code_that_fixes_the_batch_when_exported_is_refused(options: ExportOptions) -> None:
    from export import to_onnx

    source = from_torch.load("user_text_model:build_traced_constant", options)

    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(2, 4)

    with pytest.raises(ExportError, match="fixes the batch dimension") as raised:
        to_onnx.write_torch(Fixed(), source.samples[0], source.signature, options.repository / "m.onnx", options)
    assert "static shape of 2" in str(raised.value.got)


def test_a_trace_that_fixed_the_batch_is_found_by_running(options: ExportOptions) -> None:
    chosen = replace(options, format="torchscript")
    source = from_torch.load("user_text_model:build_traced_constant", chosen)
    with pytest.raises(ExportError, match="the graph fixed the batch dimension"):
        steps.run(source, chosen)
    assert not (options.repository / "net").exists()


@pytest.fixture
def scripted(options: ExportOptions, tmp_path: Path) -> Path:
    path = tmp_path / "scripted.pt"
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()
    torch.jit.save(torch.jit.trace(module, torch.rand(2, 4)), str(path))
    np.savez(tmp_path / "inputs.npz", input=np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32))
    return path


@pytest.mark.parametrize(("format_", "file"), [("torchscript", "model.pt"), ("onnx", "model.onnx")])
def test_a_torchscript_file(format_: str, file: str, scripted: Path, options: ExportOptions) -> None:
    assert from_torch_target.is_torchscript(str(scripted))
    chosen = replace(options, format=format_, samples=scripted.with_name("inputs.npz"))
    report = steps.run(from_torch.load(str(scripted), chosen, outputs=["y"]), chosen)
    assert (report.path / file).is_file()


@pytest.mark.parametrize("format_", ["torchscript", "onnx"])
def test_inputs_and_outputs_by_index(format_: str, scripted: Path, options: ExportOptions) -> None:
    """Named as Triton's PyTorch backend takes them by position, whatever forward calls them."""
    x = np.load(scripted.with_name("inputs.npz"))["input"]
    np.savez(scripted.with_name("indexed.npz"), INPUT__0=x)
    chosen = replace(options, format=format_, samples=scripted.with_name("indexed.npz"))
    steps.run(from_torch.load(str(scripted), chosen, outputs=["OUTPUT__0"]), chosen)
    config = (options.repository / "net" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "INPUT__0"' in config
    assert 'name: "OUTPUT__0"' in config


def test_a_file_needs_samples(scripted: Path, options: ExportOptions) -> None:
    with pytest.raises(ExportError, match="says nothing of its inputs") as raised:
        from_torch.load(str(scripted), options)
    assert "--samples" in str(raised.value.expected)


def test_a_pickle_asks_for_trust(scripted: Path, options: ExportOptions, tmp_path: Path) -> None:
    path = tmp_path / "pickled.pt"
    torch.save(torch.nn.Linear(4, 3), path)
    chosen = replace(options, samples=scripted.with_name("inputs.npz"))
    with pytest.raises(UntrustedSource, match="runs the code in it") as raised:
        from_torch.load(str(path), chosen)
    assert "--trust" in str(raised.value.fix)
    assert specs(from_torch.load(str(path), chosen, trust=True))["output"] == ("FP32", (3,))


def test_a_pickle_runs_nothing_before_it_is_trusted(scripted: Path, options: ExportOptions, tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.pt", tmp_path / "it_ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(witness), "w"))

    torch.save(Evil(), path)
    chosen = replace(options, samples=scripted.with_name("inputs.npz"))
    with pytest.raises(UntrustedSource):
        from_torch.load(str(path), chosen)
    assert not witness.exists()
    with pytest.raises(ExportError, match="holds no module"):
        from_torch.load(str(path), chosen, trust=True)
    assert witness.exists()


def test_weights_alone_are_no_model(scripted: Path, options: ExportOptions, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(4, 3).state_dict(), path)
    chosen = replace(options, samples=scripted.with_name("inputs.npz"))
    with pytest.raises(ExportError, match="holds no module") as raised:
        from_torch.load(str(path), chosen, trust=True)
    assert "state dict" in str(raised.value.got)
