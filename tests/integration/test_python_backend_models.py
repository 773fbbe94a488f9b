"""The Python backends in the real Triton: answers, bad requests that fail alone in a merged batch, loads that fail."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from conch.errors import ModelLoadError

pytestmark = pytest.mark.integration

SOURCES = Path(__file__).resolve().parents[2] / "python_backends"
LABELS = "ham\nspam\npromo\n"
BIO = "O\nB-PER\nI-PER\nB-LOC\nI-LOC\n"

Ask = Callable[..., dict[str, np.ndarray]]


def tensor(kind: str, name: str, datatype: str, dims: Sequence[int]) -> str:
    return f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: {list(dims)} }}\n'


def config(
    name: str,
    inputs: Mapping[str, tuple[str, Sequence[int]]],
    outputs: Mapping[str, tuple[str, Sequence[int]]],
    parameters: Mapping[str, str] | None = None,
    delay_us: int = 0,
) -> str:
    """A config.pbtxt; ``delay_us`` makes the dynamic batcher wait for company."""
    text = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 16\n'
    text += "".join(tensor("input", n, *spec) for n, spec in inputs.items())
    text += "".join(tensor("output", n, *spec) for n, spec in outputs.items())
    text += f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"
    entry = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
    return text + "".join(entry.format(key, value) for key, value in (parameters or {}).items())


def files(backend: str) -> dict[str, str | bytes | Path]:
    """The code that export puts into a version folder."""
    return {path.name: path for path in (SOURCES / backend).glob("*.py")}


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-piece tokenizer of a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "fox", "##es", "run", "철수", "##는", "in", "oslo", "🙂"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def client(triton: Any) -> grpcclient.InferenceServerClient:
    return grpcclient.InferenceServerClient(triton.grpc_url.removeprefix("grpc://"))


def wire(arrays: Mapping[str, np.ndarray]) -> list[grpcclient.InferInput]:
    inputs = []
    for name, array in arrays.items():
        item = grpcclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        item.set_data_from_numpy(array)
        inputs.append(item)
    return inputs


@pytest.fixture(scope="module")
def ask(client: grpcclient.InferenceServerClient) -> Ask:
    """A function (model, **inputs) -> the outputs by name."""

    def run(model: str, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        result = client.infer(model, wire(arrays), client_timeout=20)
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    return run


def strings(*values: str | bytes) -> np.ndarray:
    return np.array([v if isinstance(v, bytes) else v.encode() for v in values], dtype=np.object_)[:, None]


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


def entity_request(text: str = "철수 Oslo", last: int = 7) -> dict[str, np.ndarray]:
    logits = np.zeros((1, 4, 5), dtype=np.float32)
    logits[0, [0, 1, 2, 3], [0, 1, 3, 0]] = 9
    return {
        "logits": logits,
        "attention_mask": np.array([[1, 1, 1, 1]], dtype=np.int64),
        "offsets": np.array([[[0, 0], [0, 2], [3, last], [0, 0]]], dtype=np.int64),
        "text": strings(text),
    }


@dataclass(frozen=True)
class Case:
    """How a backend is loaded, a request that it answers with ``due`` in ``output``, and one that it refuses."""

    inputs: Mapping[str, tuple[str, Sequence[int]]]
    outputs: Mapping[str, tuple[str, Sequence[int]]]
    good: Mapping[str, np.ndarray]
    output: str
    due: Any
    bad: Mapping[str, np.ndarray]
    message: str
    assets: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


IDS, ONE_STRING, ONE_NUMBER = ("INT64", [-1]), ("STRING", [1]), ("FP32", [1])
CASES = {
    "text_tokenizer": Case(
        inputs={"text": ONE_STRING},
        outputs={"input_ids": IDS, "attention_mask": IDS, "token_type_ids": IDS, "offsets": ("INT64", [-1, 2])},
        parameters={"max_length": "12", "pad_to_multiple_of": "8"},
        good={"text": strings("The foxes run", "철수는 🙂")},
        output="input_ids",
        due=[[2, 4, 5, 6, 7, 3, 0, 0], [2, 8, 9, 12, 3, 0, 0, 0]],
        bad={"text": strings("fine", b"\xff\xfe")},
        message="input text: got bytes that are not UTF-8 at index 1 (byte 0: 0xff), expected UTF-8 text",
    ),
    "classify": Case(
        inputs={"logits": ("FP32", [3])},
        outputs={"label": ONE_STRING, "score": ONE_NUMBER, "scores": ("FP32", [3])},
        assets={"labels.txt": LABELS, "rules.yaml": "others: 기타\nthreshold: 0.5\nthresholds: {spam: 0.9}\n"},
        good={"logits": np.array([[4, 0, 0], [0, 2, 0]], dtype=np.float32)},
        output="label",
        due=[[b"ham"], ["기타".encode()]],
        bad={"logits": np.array([[4, 0, 0], [0, np.nan, 0]], dtype=np.float32)},
        message="input logits: got nan at row 1, class 1",
    ),
    "token_classify": Case(
        inputs={
            "logits": ("FP32", [-1, 5]),
            "attention_mask": IDS,
            "offsets": ("INT64", [-1, 2]),
            "text": ONE_STRING,
        },
        outputs={"entities": ONE_STRING},
        assets={"labels.txt": BIO},
        good=entity_request(),
        output="entities",
        due=[
            [
                '[{"label": "PER", "score": 0.999507, "start": 0, "end": 2, "text": "철수"}, '
                '{"label": "LOC", "score": 0.999507, "start": 3, "end": 7, "text": "Oslo"}]'.encode()
            ]
        ],
        bad=entity_request(last=8),
        message="input offsets: got 8, expected at most 7, the number of characters in the text",
    ),
    "image_preprocess": Case(
        inputs={"image": ONE_STRING},
        outputs={"pixel_values": ("FP32", [3, 2, 1])},
        parameters={"processor": "processor.json"},
        assets={"processor.json": json.dumps({"size": {"height": 2, "width": 1}, "image_mean": 0.5, "image_std": 0.5})},
        good={"image": strings(png((255, 0, 255)), png((0, 0, 255)))},
        output="pixel_values",
        due=[[[[1], [1]], [[-1], [-1]], [[1], [1]]], [[[-1], [-1]], [[-1], [-1]], [[1], [1]]]],
        bad={"image": strings(png((0, 0, 0)), png((0, 0, 0))[:40])},
        message="input image: got 40 bytes at index 1 that are no picture, expected JPEG, PNG or WebP",
    ),
    "pool_embeddings": Case(
        inputs={"last_hidden_state": ("FP32", [-1, 2]), "attention_mask": IDS},
        outputs={"embedding": ("FP32", [2])},
        parameters={"pooling": "mean", "normalize": "false"},
        good={
            "last_hidden_state": np.array([[[1, 2], [3, 8], [9, 9]]], dtype=np.float32),
            "attention_mask": np.array([[1, 1, 0]], dtype=np.int64),
        },
        output="embedding",
        due=[[2, 5]],
        bad={
            "last_hidden_state": np.zeros((1, 3, 2), dtype=np.float32),
            "attention_mask": np.ones((1, 2), dtype=np.int64),
        },
        message="input attention_mask: got shape [1, 2], expected [1, 3]",
    ),
}
# Triton merges requests of equal shape only, and pooling refuses nothing but shapes.
MERGED = tuple(name for name in CASES if name != "pool_embeddings")


@pytest.fixture(scope="module")
def loaded(triton: Any, tokenizer_json: Path) -> Callable[[str], str]:
    """A function backend -> the name of its model, loaded; the batcher waits 0.3 s for requests to merge."""
    names: dict[str, str] = {}

    def load(backend: str) -> str:
        if backend not in names:
            case, name = CASES[backend], f"python_backend_{backend}"
            assets: dict[str, str | bytes | Path] = dict(case.assets)
            if backend == "text_tokenizer":
                assets["tokenizer.json"] = tokenizer_json
            text = config(name, case.inputs, case.outputs, case.parameters, delay_us=300_000)
            triton.add(name, text, files(backend) | assets)
            names[backend] = name
        return names[backend]

    return load


@pytest.mark.parametrize("backend", CASES)
def test_answers(backend: str, loaded: Callable[[str], str], ask: Ask) -> None:
    case = CASES[backend]
    answer = ask(loaded(backend), **case.good)
    assert answer[case.output].tolist() == case.due
    assert set(answer) == set(case.outputs)


@pytest.mark.parametrize("backend", CASES)
def test_a_bad_request_gets_its_own_message(backend: str, loaded: Callable[[str], str], ask: Ask) -> None:
    name = loaded(backend)
    with pytest.raises(InferenceServerException) as caught:
        ask(name, **CASES[backend].bad)
    assert CASES[backend].message in str(caught.value.message())
    assert "INVALID_ARGUMENT" in str(caught.value.status())


@pytest.mark.parametrize("backend", MERGED)
def test_a_bad_request_in_a_merged_batch_fails_alone(
    backend: str, loaded: Callable[[str], str], ask: Ask, client: grpcclient.InferenceServerClient
) -> None:
    name, case = loaded(backend), CASES[backend]

    def one(index: int) -> Any:
        try:
            return ask(name, **(case.bad if index == 2 else case.good))[case.output].tolist()
        except InferenceServerException as error:
            return error

    def executions() -> int:
        return int(client.get_inference_statistics(name).model_stats[0].execution_count)

    before = executions()
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(one, range(5)))
    assert executions() - before < 5, "nothing was merged: the test shows nothing"
    assert [answer for index, answer in enumerate(answers) if index != 2] == [case.due] * 4
    assert case.message in str(answers[2])


def test_a_wrong_asset_stops_the_load_and_is_named(triton: Any) -> None:
    case, name = CASES["classify"], "python_backend_wrong_rules"
    assets = {"labels.txt": LABELS, "rules.yaml": "others: x\nthresholds: {spm: 0.5}\n"}
    with pytest.raises(ModelLoadError, match=r"rules\.yaml line 2: .*did you mean 'spam'"):
        triton.add(name, config(name, case.inputs, case.outputs), files("classify") | assets)


def test_bytecode_is_not_written_and_nothing_loads_twice(tmp_path: Path, start_server: Any) -> None:
    """Poll mode takes a new __pycache__ for a change; a file of that name is what keeps Python from making one.

    The twin without it shows that it is still needed (Triton 2.51): when that no longer loads twice, the guard can go.
    """
    case = CASES["classify"]
    repository = tmp_path / "repository"
    for name in ("guarded", "bare"):
        folder = repository / name / "1"
        shutil.copytree(SOURCES / "classify", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "labels.txt").write_text(LABELS)
        (repository / name / "config.pbtxt").write_text(config(name, case.inputs, case.outputs))
    (repository / "guarded" / "1" / "__pycache__").touch()
    log = tmp_path / "triton.log"
    start_server(repository, control="poll", poll_interval_s=1, log_path=log)

    def loads(name: str) -> int:
        return len(re.findall(f"successfully loaded '{name}'", log.read_text(errors="replace")))

    deadline = time.monotonic() + 20
    while loads("bare") < 2:
        assert time.monotonic() < deadline, "a model without the guard no longer loads twice"
        time.sleep(0.1)
    time.sleep(1.5)  # one more poll, in which the guarded one would follow
    assert loads("guarded") == 1
    assert (repository / "guarded" / "1" / "__pycache__").is_file()
    assert (repository / "bare" / "1" / "__pycache__").is_dir()
