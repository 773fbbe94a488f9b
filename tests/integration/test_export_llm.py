"""`conch export llm`: a small Llama converted, compared, tried in the real Triton; then published and rolled back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients import Client
from conch import lint
from conch.manifest import Manifest
from conch.repository import Repository
from export.llm import adapters, convert, source, steps
from export.llm.options import OpenVinoOptions
from export.report import Report
from tests.fakes import tiny_llama

pytest.importorskip("optimum.intel", reason=f"the converter is not installed: {convert.INSTALL}")
pytestmark = pytest.mark.integration

CONCH = str(Path(sys.executable).parent / "conch")
SAMPLING = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_checkpoint(tmp_path_factory.mktemp("llm") / "llama")


@pytest.fixture(scope="module")
def options(checkpoint: Path) -> OpenVinoOptions:
    return OpenVinoOptions("llama", repository=checkpoint.parent / "models", weight_format="fp16")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, options: OpenVinoOptions) -> Report:
    """fp16, compared token by token, and asked in a scratch Triton."""
    return steps.run(source.load(str(checkpoint), options), options)


def test_a_version_holds_what_serving_needs(exported: Report, checkpoint: Path) -> None:
    names = {p.name for p in exported.path.iterdir()}
    assert {"model.py", "openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml"} <= names
    assert {"tokenizer.json", "chat_template.jinja", "config.json", "generate.json", "manifest.json"} <= names
    generate = json.loads((exported.path / "generate.json").read_text())
    assert generate["context_length"] == tiny_llama.CONTEXT_LENGTH
    assert (generate["stop_token_ids"], generate["weight_format"]) == ([1], "fp16")
    assert (exported.path / "chat_template.jinja").read_text() == tiny_llama.CHAT_TEMPLATE


def test_fp16_says_what_transformers_says_in_the_file_and_as_served(exported: Report) -> None:
    greedy = next(row for row in exported.parity if row.output == "greedy tokens")
    assert greedy.samples > 50
    assert greedy.top1_agreement is not None
    assert greedy.top1_agreement > 0.95  # random weights: some tokens are as likely as the next
    assert [(row.output, row.largest_difference) for row in exported.served_parity] == [("text_output", 0.0)]
    assert "prompts answered, one of them in" in exported.trial


def test_the_manifest_keeps_agreement_and_perplexity(exported: Report) -> None:
    manifest = Manifest.read(exported.path / "manifest.json")
    agreement = manifest.settings["agreement"]
    assert agreement["perplexity"] == pytest.approx(agreement["source_perplexity"], rel=0.01)
    assert manifest.source["versions"]["optimum-intel"]
    assert [p for p in manifest.packages if p.startswith("openvino-genai")]
    assert [note for note in exported.notes if note.startswith("perplexity: ")]


def test_the_linter_finds_nothing_wrong(exported: Report) -> None:
    report = lint.check(exported.repository)
    assert (report.errors, report.warnings) == ((), ())


def test_int4_reports_how_it_agrees(checkpoint: Path, options: OpenVinoOptions, exported: Report) -> None:
    smaller = replace(options, weight_format="int4", group_size=32, trial=False)
    report = steps.run(source.load(str(checkpoint), smaller), smaller)
    agreement = Manifest.read(report.path / "manifest.json").settings["agreement"]
    assert 0.2 < agreement["text_agreement"] <= 1.0
    assert agreement["perplexity"] != agreement["source_perplexity"]
    assert report.version == exported.version + 1
    assert report.models["llama"] < exported.models["llama"]


def engine_says(model: Path, adapter: Path, prompt: list[int], count: int) -> list[int]:
    """The greedy tokens of the bare engine."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    scheduler, config = genai.SchedulerConfig(), genai.GenerationConfig()
    scheduler.cache_size = 1
    config.max_new_tokens, config.apply_chat_template = count, False
    adapters_of = genai.AdapterConfig(genai.Adapter(str(adapter)), mode=genai.AdapterConfig.Mode.MODE_STATIC)
    options = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32", "adapters": adapters_of}
    pipeline = genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", options)
    handle = pipeline.add_request(0, openvino.Tensor(np.array([prompt], np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return [token for output in handle.read_all() for token in output.generated_ids]


def test_an_adapter_acts_as_peft_scales_it(exported: Report, checkpoint: Path, tmp_path: Path) -> None:
    """A quarter of W + BA, by lora_alpha / r."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    weights = tiny_llama.write_adapter(tmp_path / "adapter_model.safetensors", seed=3)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 1}))
    adapters.write(tmp_path, tmp_path / "ready.safetensors")
    module = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    lora = load_file(weights)
    with torch.no_grad():
        for number, layer in enumerate(module.model.layers):
            prefix = f"base_model.model.model.layers.{number}.self_attn.q_proj"
            layer.self_attn.q_proj.weight += lora[f"{prefix}.lora_B.weight"] @ lora[f"{prefix}.lora_A.weight"] / 4
    prompt = [0, 200, 210, 33]
    due = module.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    assert engine_says(exported.path, tmp_path / "ready.safetensors", prompt, 8) == due
    assert engine_says(exported.path, weights, prompt, 8) != due


def repo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [CONCH, "repo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_published_to_a_live_server_and_rolled_back(exported: Report, tmp_path: Path, start_server: Any) -> None:
    first = repo(tmp_path, "publish", str(exported.path), "--repository", "models", "--json")
    assert first.returncode == 0, first.stderr
    root = tmp_path / "models"
    server = start_server(root, control="explicit", load_models=("llama",))
    where = ("--repository", "models", "--server", server.grpc_url)

    def ask(max_tokens: int = 12) -> tuple[str, str]:
        with Client(server.grpc_url) as client:
            done = client.chat("llama", [{"role": "user", "content": "Hello"}], temperature=0, max_tokens=max_tokens)
            return done.text, done.version

    before, version = ask()
    assert before
    assert version == "1"
    changed = tmp_path / "changed"
    changed.mkdir()
    manifest = Manifest.read(exported.path / "manifest.json")
    for path in exported.path.rglob("*"):
        if path.is_file() and path.name not in ("manifest.json", "generate.json"):
            (changed / path.relative_to(exported.path)).parent.mkdir(parents=True, exist_ok=True)
            (changed / path.relative_to(exported.path)).write_bytes(path.read_bytes())
    shorter = json.loads((exported.path / "generate.json").read_text()) | {"context_length": 128}
    (changed / "generate.json").write_text(json.dumps(shorter))
    replace(manifest, files=_digests(changed)).write(changed)
    second = repo(tmp_path, "publish", str(changed), *where)
    assert second.returncode == 0, second.stderr
    assert ask() == (before, "2")
    back = repo(tmp_path, "rollback", "llama", *where)
    assert back.returncode == 0, back.stderr
    assert ask() == (before, "1")
    assert Repository(root).versions("llama") == [1, 2]


def _digests(folder: Path) -> dict[str, str]:
    from conch.manifest import digest_files

    return digest_files(folder)
