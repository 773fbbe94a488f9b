"""The model folder of Triton's vLLM backend: what model.json says, and what is refused before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch import lint
from conch.cli import root
from conch.errors import ExportError
from conch.repository import Repository
from export.llm import steps, write_vllm
from export.llm.options import VllmOptions
from export.llm.source import LlmSource, ModelFacts
from export.llm.vllm_engine import OPTIONS, OWN, QUANTIZATIONS, RENAMED

FACTS = ModelFacts(4096, (2, 7), "{{ messages[0].content }}", "<s>", "</s>")
FROM_HUB = LlmSource(Path("unused"), FACTS, {"model": "org/llama", "revision": "abc123"}, ("Hello",), "")


@pytest.fixture
def options(tmp_path: Path) -> VllmOptions:
    return VllmOptions("big", repository=tmp_path / "models")


def exported(source: LlmSource, options: VllmOptions) -> tuple[dict[str, Any], Path]:
    report = steps.run(source, options)
    return json.loads((report.path / "model.json").read_text(encoding="utf-8")), report.path


def test_model_json_holds_what_was_asked_for(options: VllmOptions) -> None:
    asked = replace(
        options,
        tensor_parallel=2,
        quantization="awq",
        memory_share=0.85,
        prefix_caching=False,
        speculation="prompt_lookup",
        engine={"max_num_seqs": 128},
    )
    engine, _ = exported(FROM_HUB, asked)
    assert engine == {
        "model": "org/llama",
        "revision": "abc123",
        "max_model_len": 4096,
        "tensor_parallel_size": 2,
        "quantization": "awq",
        "gpu_memory_utilization": 0.85,
        "enable_prefix_caching": False,
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 4,
            "prompt_lookup_max": 4,
            "prompt_lookup_min": 2,
        },
        "max_num_seqs": 128,
    }


def test_a_draft_model_guesses(options: VllmOptions) -> None:
    asked = replace(options, speculation="draft", draft="org/eagle", num_assistant_tokens=3)
    assert write_vllm.model_json(FROM_HUB, asked)["speculative_config"] == {
        "model": "org/eagle",
        "num_speculative_tokens": 3,
    }


def test_a_local_checkpoint_is_named_by_its_place_and_the_mount_is_told(options: VllmOptions, tmp_path: Path) -> None:
    source = replace(FROM_HUB, folder=tmp_path / "llama", provenance={"model": "llama", "revision": None})
    report = steps.run(source, options)
    assert json.loads((report.path / "model.json").read_text())["model"] == str(tmp_path / "llama")
    assert [note for note in report.notes if f"--volume {tmp_path}/llama:{tmp_path}/llama:ro" in note]
    assert "nothing was loaded or asked" in report.trial


def test_a_gateway_finds_template_and_length_in_the_config(options: VllmOptions) -> None:
    _, path = exported(FROM_HUB, options)
    config = Repository(options.repository).config("big")
    assert config.parameters["chat_template"].string_value == FACTS.chat_template
    assert config.parameters["eos_token"].string_value == FACTS.eos_token
    assert config.parameters["context_length"].string_value == "4096"
    assert config.model_transaction_policy.decoupled
    assert (path / "chat_template.jinja").read_text(encoding="utf-8") == FACTS.chat_template
    generate = json.loads((path / "generate.json").read_text(encoding="utf-8"))
    assert (generate["context_length"], generate["stop_token_ids"]) == (4096, [2, 7])


def test_the_linter_accepts_the_folder(options: VllmOptions) -> None:
    exported(FROM_HUB, options)
    report = lint.check(options.repository)
    assert (report.errors, report.warnings) == ((), ())


def test_the_linter_misses_model_json(options: VllmOptions) -> None:
    _, path = exported(FROM_HUB, options)
    (path / "model.json").unlink()
    found = [f for f in lint.check(options.repository).errors if f.rule == "R00"]
    assert [f.expected for f in found] == ["model.json"]


def test_it_is_published_without_a_trial_alone(options: VllmOptions, tmp_path: Path) -> None:
    _, path = exported(FROM_HUB, options)
    arguments = ["repo", "publish", str(path), "--repository", str(tmp_path / "live")]
    refused = CliRunner().invoke(root, arguments)
    assert "--no-trial" in str(refused.exception)
    assert CliRunner().invoke(root, [*arguments, "--no-trial"]).exit_code == 0
    assert Repository(tmp_path / "live").versions("big") == [1]


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ({"max_num_sequences": 8}, "did you mean max_num_seqs?"),
        ({"max-num-seqs": 8}, "did you mean max_num_seqs?"),
        ({"speculative_model": "x"}, "speculative_config"),
        ({"hf_token": "secret"}, "HF_TOKEN"),
        ({"zzz": 1}, "https://docs.vllm.ai"),
        ({"max_num_seqs": "many"}, "a whole number above 0"),
        ({"max_num_seqs": True}, "a whole number above 0"),
        ({"enforce_eager": "yes"}, "true or false"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel"),
        ({"speculative_config": {}}, "--speculation"),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_written(
    engine: dict[str, Any], told: str, options: VllmOptions
) -> None:
    with pytest.raises(ExportError) as raised:
        steps.run(FROM_HUB, replace(options, engine=engine))
    assert told in str(raised.value)
    assert Repository(options.repository).model_names() == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("memory_share", 90.0, "above 0, at most 1"),
        ("memory_share", 0.0, "above 0, at most 1"),
        ("quantization", "aqw", "did you mean awq?"),
    ],
)
def test_a_wrong_value_of_an_own_option_is_refused(field: str, value: object, told: str, options: VllmOptions) -> None:
    with pytest.raises(ExportError) as raised:
        replace(options, **{field: value}).check()
    assert told in str(raised.value)


def test_the_tables_agree_with_each_other() -> None:
    assert set(OWN) <= OPTIONS
    assert not set(RENAMED) & OPTIONS
    assert {"awq", "gptq", "fp8", "bitsandbytes"} <= QUANTIZATIONS
