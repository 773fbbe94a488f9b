"""Chats rendered in the gateway, as for models behind Triton's vLLM backend."""

import re
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.openai_api.chat_template import render_chat

CHATML = """\
{%- if tools %}
<tools>{{ tools | tojson }}</tools>
{% endif %}
{%- for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{%- endif %}
"""
HELLO = [{"role": "user", "content": '1 < 2 & "ü"'}]


def test_messages_end_where_the_answer_begins() -> None:
    assert render_chat(CHATML, HELLO) == '<|im_start|>user\n1 < 2 & "ü"<|im_end|><|im_start|>assistant'


def test_tools_are_written_as_they_are() -> None:
    text = render_chat(CHATML, HELLO, [{"type": "function", "function": {"name": "<wetter> für"}}])
    assert text.startswith('<tools>[{"type": "function", "function": {"name": "<wetter> für"}}]</tools>')


def test_a_template_s_own_variables() -> None:
    template = "{% if enable_thinking %}think {% endif %}{{ messages[0].content }}"
    assert render_chat(template, HELLO, variables={"enable_thinking": True}).startswith("think ")
    assert not render_chat(template, HELLO).startswith("think ")


def test_transformers_additions_are_there() -> None:
    template = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ bos_token }}{{ m.role }}{% endfor %}"
    )
    assert render_chat(template + "{{ strftime_now('') }}", HELLO * 3) == "user"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('only two roles') }}", "only two roles"),
        ("{{ messages[0].absent.more }}", "absent"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{% if %}", "chat template"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% set x = messages.append(1) %}", "unsafe|immutable|not safely"),
        ("{{ 1 // 0 }}", "zero"),
        ("{% for i in range(10000000) %}{% endfor %}", "[Rr]ange"),
    ],
)
def test_what_a_template_cannot_do_is_the_request_s_fault(template: str, words: str) -> None:
    with pytest.raises(GatewayError, match="cannot render") as met:
        render_chat(template, HELLO)
    assert met.value.status == 400
    assert met.value.param == "messages"
    assert re.search(words, met.value.message)


def test_variables_do_not_hide_the_messages() -> None:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "other"}]}
    assert "other" not in render_chat(CHATML, HELLO, variables=given)
