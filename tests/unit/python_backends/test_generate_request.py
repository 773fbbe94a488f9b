"""Requests are read as Triton's vLLM backend reads them; chats are rendered as transformers renders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import tiny_llama
from tests.fakes.generate_code import module

request = module("generate_request")
chat = module("generate_chat")
prompt = module("generate_prompt")
settings = module("generate_settings")
Refused = module("generate_refusal").Refused

HELLO = [{"role": "user", "content": "hello <b>&</b> 안녕"}]


def arrays(**given: Any) -> dict[str, Any]:
    as_bytes = {name: value.encode() if isinstance(value, str) else value for name, value in given.items()}
    return {
        name: np.array([value], dtype=np.bool_ if isinstance(value, bool) else np.object_)
        for name, value in as_bytes.items()
    }


def ask(parameters: str = "{}", **given: Any) -> Any:
    return request.read_ask(arrays(**given), parameters)


@pytest.mark.parametrize(
    ("given", "prepended"),
    [
        ({"text_input": "a"}, True),
        ({"text_input": "a", "stream": True}, False),
        ({"text_input": "a", "exclude_input_in_output": True}, False),
        ({"text_input": "a", "exclude_input_in_output": False}, True),
        ({"text_input": "", "chat": json.dumps({"messages": HELLO})}, False),
    ],
)
def test_a_prompt_comes_back_as_vllms_backend_does_it(given: dict[str, Any], prepended: bool) -> None:
    assert ask(**given).prepend_input is prepended


def test_parameters_of_the_request_stand_in_for_the_tensor() -> None:
    own = json.dumps({"temperature": 0.0, "max_tokens": 3, "triton_enable_empty_final_response": True})
    assert ask(own, text_input="a").sampling.max_tokens == 3
    assert ask(own, text_input="a", sampling_parameters='{"max_tokens": 5}').sampling.max_tokens == 5


def test_additional_outputs_are_those_asked_for() -> None:
    asked = ask(text_input="a", return_finish_reason=True, return_logprobs=False, return_num_output_tokens=True)
    assert asked.returns == {"finish_reason", "num_output_tokens"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "text_input"),
        ({"text_input": "a", "chat": "{}"}, "beside a chat"),
        ({"text_input": b"\xff"}, "expected UTF-8"),
        ({"text_input": "a", "stream": True, "exclude_input_in_output": False}, "exclude_input_in_output"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=r"^invalid: ") as caught:
        ask(**given)
    assert words in str(caught.value)


def test_a_tensor_of_several_texts_is_refused() -> None:
    with pytest.raises(Refused, match=r"shape \[2\]"):
        request.read_ask({"text_input": np.array([b"a", b"b"], dtype=np.object_)}, "{}")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder without weights."""
    folder = tmp_path_factory.mktemp("version")
    tiny_llama.tokenizer().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(tiny_llama.CHAT_TEMPLATE, encoding="utf-8")
    (folder / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [1], "max_position_embeddings": 64}')
    return folder


@pytest.fixture(scope="module")
def prompts(version: Path) -> Any:
    return prompt.Prompts(settings.read_settings(version, {}))


def test_a_prompt_has_the_tokens_that_transformers_gives_it(prompts: Any) -> None:
    text = "배송이 늦어요 🙂 plain"
    assert prompts.encode(ask(text_input=text)) == tiny_llama.tokenizer()(text)["input_ids"]


def test_a_chat_has_the_tokens_that_transformers_gives_it(prompts: Any) -> None:
    due = tiny_llama.tokenizer().apply_chat_template(HELLO, add_generation_prompt=True, return_dict=False)
    assert prompts.encode(ask(text_input="", chat=json.dumps({"messages": HELLO}))) == due


@pytest.mark.parametrize(
    ("template", "tools", "variables"),
    [
        ("{% for m in messages %}{{ m.content | tojson }}{% endfor %}", None, {}),
        ("{% for t in tools %}{{ t | tojson(indent=2) }}\n{% endfor %}", [{"name": "날씨", "n": 1}], {}),
        ("  {% if thinking %}think{% else %}answer{% endif %}\n{{ bos_token }}", None, {"thinking": True}),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}.", None, {}),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", None, {}),
    ],
)
def test_templates_render_as_in_transformers(
    tmp_path: Path, template: str, tools: list[Any] | None, variables: dict[str, Any]
) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_text(template, encoding="utf-8")
    reference = tiny_llama.tokenizer().apply_chat_template(
        HELLO, tools=tools, chat_template=template, tokenize=False, **variables
    )
    document = json.dumps(
        {"messages": HELLO, "tools": tools, "template_variables": {**variables, "add_generation_prompt": False}}
    )
    assert chat.ChatTemplate(path, {"bos_token": "<s>"}).render(document) == reference


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "chat"),
        ("[]", "messages"),
        ('{"messages": []}', "messages"),
        ('{"messages": ["hello"]}', "messages"),
        ('{"messages": [{"role": "user", "content": "x"}], "tool": []}', "messages"),
        ('{"messages": [{"role": "user", "content": "x"}], "template_variables": 3}', "template_variables"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "no robots"),
    ],
)
def test_a_chat_that_cannot_be_rendered_is_refused(tmp_path: Path, document: str, words: str) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_text("{% if messages[0].role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}")
    with pytest.raises(Refused, match=r"^invalid: chat") as caught:
        chat.ChatTemplate(path, {}).render(document)
    assert words in str(caught.value)


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Refused, match="refuses"):
        chat.ChatTemplate(path, {}).render(json.dumps({"messages": HELLO}))


@pytest.mark.parametrize("length", [70, 100_000])
def test_a_prompt_over_the_context_is_refused(prompts: Any, length: int) -> None:
    with pytest.raises(Refused, match=r"^too long: the prompt has (more than )?\d+ tokens, expected at most 63"):
        prompts.encode(ask(text_input="q" * length))


def test_a_prompt_without_tokens_is_refused(version: Path, tmp_path: Path) -> None:
    bare = json.loads((version / "tokenizer.json").read_text(encoding="utf-8"))
    bare["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(bare), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    without = prompt.Prompts(settings.read_settings(tmp_path, {}))
    with pytest.raises(Refused, match=r"^invalid: text_input"):
        without.encode(ask(text_input=""))
    with pytest.raises(Refused, match=r"no chat template"):
        without.encode(ask(chat=json.dumps({"messages": HELLO})))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_queue": "3"}, "did you mean max_queue_size?"),
        ({"cache_size_gb": "0"}, "cache_size_gb"),
        ({"threads": "two"}, "threads"),
        ({"speculation": "magic"}, "speculation"),
        ({"speculation": "draft"}, "draft"),
        ({"enable_prefix_caching": "yes"}, "enable_prefix_caching"),
        ({"execution_mode": "slow"}, "execution_mode"),
        ({"adapters": "polite"}, "adapters"),
    ],
)
def test_a_wrong_parameter_is_named(version: Path, parameters: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        settings.read_settings(version, parameters)


def test_limits_come_from_the_model_where_generate_json_is_not_there(version: Path) -> None:
    read = settings.read_settings(version, {"FORCE_CPU_ONLY_INPUT_TENSORS": "yes"})
    assert (read.context_length, read.stop_token_ids) == (64, {1})


def test_generate_json_says_what_export_wrote(version: Path, tmp_path: Path) -> None:
    (tmp_path / "generate.json").write_text('{"context_length": 32, "stop_token_ids": [5, 6]}')
    read = settings.read_settings(tmp_path, {})
    assert (read.context_length, read.stop_token_ids) == (32, {5, 6})


@pytest.mark.parametrize(("cache_size_gb", "due"), [("1", 29_491), ("2", 58_982), ("64", 100_000)])
def test_a_request_is_no_longer_than_the_cache(tmp_path: Path, cache_size_gb: str, due: int) -> None:
    shape = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 16}
    config = {**shape, "max_position_embeddings": 100_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = settings.read_settings(tmp_path, {"cache_size_gb": cache_size_gb})
    assert read.context_length == due


def test_a_version_without_a_context_length_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="context_length"):
        settings.read_settings(tmp_path, {})
