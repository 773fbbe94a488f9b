"""Tool calls in every format that is known, whole and cut at any character."""

import json

import pytest

from gateway.openai_api.tool_calls import ToolCall, ToolCallReader

TOOLS = ("weather", "time")
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
TWO = '{"name": "time", "arguments": {"zone": "중부"}}'

FORMATS = {
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{TWO}\n</tool_call>",
    "mistral": f"[TOOL_CALLS][{CALL}, {TWO}]",
    "mistral without its tag": f"[{CALL}, {TWO}]",
    "llama": f"<|python_tag|>{CALL.replace('arguments', 'parameters')}; {TWO.replace('arguments', 'parameters')}",
    "llama without its tag": f" {CALL.replace('arguments', 'parameters')};{TWO}",
    "hermes cut off": f"<tool_call>{CALL}</tool_call><tool_call>{TWO}",
}


def read(text: str, width: int) -> tuple[str, list[ToolCall]]:
    reader = ToolCallReader(TOOLS)
    parts = [reader.feed(text[i : i + width]) for i in range(0, len(text), width)] + [reader.close()]
    return "".join(part.text for part in parts), [call for part in parts for call in part.calls]


@pytest.mark.parametrize("width", [1, 3, 7, 1000])
@pytest.mark.parametrize("form", FORMATS)
def test_calls_are_found_however_the_text_is_cut(form: str, width: int) -> None:
    text, calls = read(FORMATS[form], width)
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", {"city": "Paris"}),
        ("time", {"zone": "중부"}),
    ]
    assert text.strip() == ""
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("width", [1, 4, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "It rains.",
        "a < b and <tool is no tag",
        "<tool_call>not json</tool_call> and more",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '{"answer": 42}',
        "[note] all well",
        "{broken",
        "<|python",
        '{"name": "weather", "arguments": 5}',
        f"{CALL} and then words",
        f'[{CALL}, {{"name": "other"}}]',
        "",
        "   ",
        "ends with <tool_c",
    ],
)
def test_all_else_stays_text(text: str, width: int) -> None:
    assert read(text, width) == (text, [])


@pytest.mark.parametrize("width", [1, 5, 1000])
def test_text_around_a_call_is_kept(width: int) -> None:
    text, calls = read(f"I look.\n<tool_call>{CALL}</tool_call>\nDone.", width)
    assert [call.name for call in calls] == ["weather"]
    assert text == "I look.\n\nDone."


def test_text_is_not_held_back_longer_than_it_may_be_a_call() -> None:
    reader = ToolCallReader(TOOLS)
    assert reader.feed("It rains").text == "It rains"
    assert reader.feed(" <tool").text == " "
    assert reader.feed("box").text == "<toolbox"


@pytest.mark.parametrize("form", FORMATS)
def test_one_call_may_be_all_that_is_wanted(form: str) -> None:
    reader = ToolCallReader(TOOLS, only_one=True)
    parts = (reader.feed(FORMATS[form]), reader.close())
    assert [call.name for part in parts for call in part.calls] == ["weather"]


def test_arguments_may_come_as_text() -> None:
    (call,) = read('{"name": "time", "arguments": "{\\"zone\\": 1}"}', 1000)[1]
    assert json.loads(call.arguments) == {"zone": 1}
    assert call.as_json()["function"] == {"name": "time", "arguments": call.arguments}
