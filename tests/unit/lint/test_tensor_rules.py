import pickle
import zipfile
from pathlib import Path

import pytest

from conch.lint.torchscript_header import read_forward
from tests.fakes.lint_repositories import FLOAT16, PYTHON_CONFIG, findings, found, onnx, onnx_model, python_model, write

BATCHED = 'name: "NAME"\nbackend: "python"\nmax_batch_size: 8\ninstance_group { count: 1 kind: KIND_CPU }\n'
INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n'
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }\n'
TORCH = """\
name: "NAME"
platform: "pytorch_libtorch"
max_batch_size: 8
instance_group { count: 1 kind: KIND_CPU }
parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }
"""


def reshaped(dims: str, shape: str) -> str:
    return BATCHED + INPUT.replace("[ 4 ]", f"[ {dims} ] reshape {{ shape: [ {shape} ] }}") + OUTPUT


def image(dims: str, name: str = "FORMAT_NCHW") -> str:
    return BATCHED + INPUT.replace("dims: [ 4 ]", f"format: {name} dims: [ {dims} ]") + OUTPUT


def halves(kind: str) -> str:
    return BATCHED + INPUT.replace("FP32", kind) + OUTPUT


def text(dims: str = "1", batch: int = 8) -> str:
    config = BATCHED + INPUT.replace("FP32", "STRING").replace("[ 4 ]", f"[ {dims} ]") + OUTPUT
    return config.replace("max_batch_size: 8", f"max_batch_size: {batch}")


def ensemble_of(member: str) -> str:
    return f"""
    name: "e"
    platform: "ensemble"
    max_batch_size: 8
    {INPUT} {OUTPUT}
    ensemble_scheduling {{ step {{
        model_name: "{member}" model_version: -1
        input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }}
    }} }}
    """


BROKEN = [
    ("R14", reshaped("4", "5")),
    ("R14", reshaped("4", "")),
    ("R14", reshaped("-1, 4", "4")),
    ("R14", reshaped("2, -1, 4", "4, -1, 2")),
    ("R14", reshaped("4", "4, -1")),
    ("R15", image("3, 224")),
    ("R15", image("1, 3, 224, 224", "FORMAT_NHWC")),
    ("R16", halves("FP16")),
    ("R16", halves("BF16")),
    ("R17", text()),
]
SOUND = [
    reshaped("4", "2, 2"),
    reshaped("1", ""),
    reshaped("2, 4, -1, 6", "8, -1, 1, 6"),
    image("3, 224, 224"),
    image("4", "FORMAT_NONE"),
    halves("FP64"),
    text("2"),
    text("1", batch=0),
]


@pytest.mark.parametrize(("rule", "config"), BROKEN)
def test_a_config_that_breaks_one_rule_has_that_finding_alone(rule: str, config: str, tmp_path: Path) -> None:
    python_model(tmp_path, config=config)
    assert found(tmp_path) == [rule]


@pytest.mark.parametrize("config", SOUND)
def test_a_sound_config_has_no_finding(config: str, tmp_path: Path) -> None:
    python_model(tmp_path, config=config)
    assert findings(tmp_path) == ()


def test_only_public_models_are_for_json_clients(tmp_path: Path) -> None:
    onnx_model(
        tmp_path,
        "inner",
        PYTHON_CONFIG.replace("python", "onnxruntime").replace("FP32", "FP16"),
        onnx({"x": (FLOAT16, ["b", 4])}, {"y": (FLOAT16, ["b", 3])}),
    )
    assert found(tmp_path) == ["R16"]
    public = ensemble_of("inner").replace("FP32", "FP16")
    write(tmp_path / "e", {"config.pbtxt": public, "1": None})
    assert [(f.rule, f.model) for f in findings(tmp_path)] == [("R16", "e")]


def torchscript(
    path: Path, arguments: str = "x: Tensor", returns: str = "Tensor", module: str = "__torch__.nets", name: str = "Net"
) -> None:
    """A TorchScript file without weights, laid out as torch.jit.save does it."""
    source = (
        f"class Other(Module):\n  def forward(self, a: Tensor) -> Tensor:\n    return a\n\n"
        f"class {name}(Module):\n  __parameters__ = []\n"
        f'  __annotations__["0"] = __torch__.torch.nn.modules.conv.___torch_mangle_0.Conv2d\n'
        f"  def forward(self: {module}.{name},\n    {arguments}) -> {returns}:\n    return (x,)\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81.")
        archive.writestr(f"model/code/{module.replace('.', '/')}.py", source)


def torch_model(root: Path, inputs: list[str], outputs: list[str], **forward: str) -> None:
    tensors = "".join(INPUT.replace('"x"', f'"{n}"') for n in inputs)
    tensors += "".join(OUTPUT.replace('"y"', f'"{n}"') for n in outputs)
    write(root / "m", {"config.pbtxt": TORCH.replace("NAME", "m") + tensors})
    torchscript(root / "m/1/model.pt", **forward)


TWO = {"arguments": "ids: Tensor,\n    mask: Tensor", "returns": "Tuple[Tensor, Tensor]"}

TORCH_BROKEN = [
    (["a", "b"], ["out__0", "out__1"], TWO, "warning"),
    (["ids__0", "b"], ["out__0", "out__1"], TWO, "warning"),
    (["ids", "mask"], ["first", "second"], TWO, "warning"),
    (["ids"], ["out__0"], TWO, "error"),
    (["a__0", "a__0x"], ["out__0"], TWO, "warning"),
    (["a__0", "b__2"], ["out__0"], TWO, "error"),
    (["a__1", "b__1"], ["out__0"], TWO, "error"),
    (["ids", "mask"], ["out__2"], TWO, "error"),
    (["other"], ["y"], {}, "note"),
]
TORCH_SOUND = [
    (["x"], ["y"], {}),
    (["INPUT__0"], ["OUTPUT__0"], {}),
    (["mask", "ids"], ["out__1", "out__0"], TWO),
    (["b__1", "a__0"], ["out__0"], TWO),
    (["any", "name"], ["y"], {"arguments": "inputs: Dict[str, Tensor]"}),
    (["x"], ["y"], {"returns": "Tuple[Tensor]"}),
]


@pytest.mark.parametrize(("inputs", "outputs", "forward", "severity"), TORCH_BROKEN)
def test_names_that_torchscript_cannot_be_matched_by(
    inputs: list[str], outputs: list[str], forward: dict[str, str], severity: str, tmp_path: Path
) -> None:
    torch_model(tmp_path, inputs, outputs, **forward)
    assert [(f.rule, f.severity) for f in findings(tmp_path)] == [("R18", severity)]


@pytest.mark.parametrize(("inputs", "outputs", "forward"), TORCH_SOUND)
def test_names_that_torchscript_is_matched_by(
    inputs: list[str], outputs: list[str], forward: dict[str, str], tmp_path: Path
) -> None:
    torch_model(tmp_path, inputs, outputs, **forward)
    assert findings(tmp_path) == ()


def test_the_names_of_a_model_that_cannot_be_read_are_in_doubt_only(tmp_path: Path) -> None:
    torch_model(tmp_path, ["a", "b"], ["y"])
    (tmp_path / "m/1/model.pt").write_bytes(b"no zip")
    assert [(f.rule, f.severity) for f in findings(tmp_path)] == [("R18", "note")]


def test_forward_is_read_without_torch(tmp_path: Path) -> None:
    torchscript(tmp_path / "model.pt", **TWO, module="__torch__.a.b.___torch_mangle_7")
    head = read_forward(tmp_path / "model.pt")
    assert head is not None
    assert head.arguments == (("ids", "Tensor"), ("mask", "Tensor"))
    assert head.results == 2


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", b"garbage", pickle.dumps({}), b"\x80\x02c__torch__.gone\nNet\n.", b"cos\nsystem\n."]
)
def test_a_pickle_that_torch_did_not_write_says_nothing(pickled: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickled)
    assert read_forward(tmp_path / "model.pt") is None
