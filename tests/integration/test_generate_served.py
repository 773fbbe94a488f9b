"""A generating model in the real Triton: streams, equality, limits, refusals, cancelling, metrics."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tiny_llama
from tests.integration.generate_asks import ALL_RETURNS, GREEDY, Answer, ask, ask_together, asking, metric

pytest.importorskip("openvino_genai", reason="the extra llm is not installed")
pytest.importorskip("optimum.intel", reason="the converter is not installed: see export/llm/convert.py")

pytestmark = pytest.mark.integration

NAME = "generate_tiny"
PROMPTS = [f"{start} {number}: the parcel" for number, start in enumerate(["배송이", "A", "Café 🙂", "중文 日本"] * 4)]
LONG = {"temperature": 0.0, "max_tokens": 8000, "ignore_eos": True}
ENUM = {"enum": ["yes, please", "no, thanks"]}

Asker = Callable[..., Answer]


@pytest.fixture(scope="module")
def served(triton: Any) -> Any:
    tiny_llama.write_model(triton.repository, NAME, {"max_queue_size": "64"}, adapters={"one": 1, "two": 2})
    triton.load(NAME)
    return triton


@pytest.fixture(scope="module")
def tell(served: Any) -> Asker:
    return lambda text="", **options: ask(served.grpc_url, NAME, text, **options)


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return condition()


def test_a_stream_is_the_whole_text_in_pieces(tell: Asker) -> None:
    whole = tell(PROMPTS[0], sampling=GREEDY, stream=False, exclude=True)
    pieces = tell(PROMPTS[0], sampling=GREEDY)
    assert len(whole.responses) == 1
    assert len(pieces.responses) > 5
    assert pieces.text == whole.text


def test_a_whole_text_begins_with_its_prompt_as_vllms_does(tell: Asker) -> None:
    whole = tell(PROMPTS[0], sampling=GREEDY, stream=False)
    assert whole.text == PROMPTS[0] + tell(PROMPTS[0], sampling=GREEDY).text


def test_http_takes_parameters_beside_the_text(served: Any, tell: Asker) -> None:
    body = {"text_input": PROMPTS[0], "exclude_input_in_output": True, "parameters": {}, **GREEDY}
    request = urllib.request.Request(
        f"{served.http_url}/v2/models/{NAME}/generate",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["text_output"] == tell(PROMPTS[0], sampling=GREEDY).text


def test_additional_outputs(tell: Asker) -> None:
    answer = tell("a parcel", sampling={**GREEDY, "logprobs": 1}, returns=ALL_RETURNS)
    tokens = len(tiny_llama.tokenizer()("a parcel")["input_ids"])
    assert {int(response["num_input_tokens"]) for response in answer.responses} == {tokens}
    assert answer.total("num_output_tokens") == GREEDY["max_tokens"]
    assert [response["finish_reason"] for response in answer.responses][-2:] == ["", "length"]
    assert answer.responses[-1]["cumulative_logprob"] < 0
    assert '"decoded_token"' in answer.responses[0]["logprobs"]


def test_greedy_text_is_the_same_alone_and_among_sixteen(served: Any, tell: Asker) -> None:
    sampling = {**GREEDY, "max_tokens": 96}
    alone = [tell(text, sampling=sampling).text for text in PROMPTS]
    together = ask_together(served.grpc_url, NAME, [{"text": text, "sampling": sampling} for text in PROMPTS])
    assert [answer.text for answer in together] == alone
    assert len(set(alone)) > 8, "the prompts make no difference, and the test none"


def test_a_seed_makes_a_text_of_its_own_alone_and_among_others(served: Any, tell: Asker) -> None:
    def sampling(seed: int | None) -> dict[str, Any]:
        return {"temperature": 1.0, "max_tokens": 32, "seed": seed, "ignore_eos": True}

    alone = [tell("a parcel", sampling=sampling(seed)).text for seed in range(4)]
    seeds: list[int | None] = [None, 0, 1, None, 2, 3]
    together = ask_together(served.grpc_url, NAME, [{"text": "a parcel", "sampling": sampling(s)} for s in seeds])
    texts = [answer.text for answer in together]
    assert [texts[index] for index in (1, 2, 4, 5)] == alone
    assert len(set(texts)) == len(texts), "no seed must be another seed every time"


def test_characters_come_whole(served: Any) -> None:
    sampling = {"temperature": 1.0, "max_tokens": 64, "ignore_eos": True}
    requests = [{"text": "🙂 한국어", "sampling": {**sampling, "seed": seed}} for seed in range(8)]
    wholes = ask_together(served.grpc_url, NAME, [{**one, "stream": False, "exclude": True} for one in requests])
    pieces = ask_together(served.grpc_url, NAME, requests)
    assert [answer.text for answer in pieces] == [answer.text for answer in wholes]


@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_stop_string_ends_the_text_before_it(tell: Asker, length: int) -> None:
    text = tell(PROMPTS[1], sampling=GREEDY).text
    stop = text[12 : 12 + length]
    answer = tell(PROMPTS[1], sampling={**GREEDY, "stop": [stop]}, returns=["finish_reason"])
    assert answer.text == text[: text.index(stop)]
    assert answer.responses[-1]["finish_reason"] == "stop"


def test_a_stop_token_ends_the_text(tell: Asker) -> None:
    words = tiny_llama.tokenizer()
    text = tell(PROMPTS[1], sampling=GREEDY).text
    token = words(text, add_special_tokens=False)["input_ids"][8]
    answer = tell(PROMPTS[1], sampling={**GREEDY, "ignore_eos": False, "stop_token_ids": [token]})
    assert len(answer.text) < len(text)
    assert text.startswith(answer.text)


def test_a_schema_holds_the_text(served: Any, tell: Asker) -> None:
    sampling = {"max_tokens": 64, "seed": 5}
    held = {**sampling, "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": ENUM}}}
    answers = ask_together(
        served.grpc_url, NAME, [{"text": "well?", "sampling": held}, {"text": "well?", "sampling": sampling}]
    )
    assert answers[0].text in ('"yes, please"', '"no, thanks"')
    assert answers[1].text == tell("well?", sampling=sampling).text


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}])
def test_a_schema_that_is_none_is_refused_and_nobody_else_suffers(
    served: Any, tell: Asker, schema: dict[str, Any]
) -> None:
    with asking(served.grpc_url, NAME, "on and on", sampling=LONG) as other:
        other.next()
        assert tell("well?", sampling={"guided_json": schema}).error.startswith("invalid: ")
        assert other.next() is not None


def test_adapters_change_the_text_of_who_asks_for_them(served: Any, tell: Asker) -> None:
    def asked(lora: str | None) -> dict[str, Any]:
        return {"text": PROMPTS[2], "sampling": {**GREEDY, "lora": lora}}

    order = [None, "one", "two", None, "one"]
    texts = [answer.text for answer in ask_together(served.grpc_url, NAME, [asked(lora) for lora in order])]
    assert texts == [tell(**asked(lora)).text for lora in order]
    assert len(set(texts)) == 3


def test_a_chat_is_rendered_with_the_models_template(tell: Asker) -> None:
    messages = [{"role": "user", "content": "hello 안녕"}]
    answer = tell(chat={"messages": messages}, sampling=GREEDY, returns=["num_input_tokens"])
    tokens = tiny_llama.tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert answer.responses[0]["num_input_tokens"] == len(tokens)
    assert answer.text


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"text": "a", "sampling": {"temprature": 1}}, "invalid: sampling parameter temprature"),
        ({"text": "a", "sampling": {"lora": "three"}}, "invalid: lora: got 'three', expected one of one, two"),
        ({"text": "a " * 10_000}, "too long: the prompt has "),
        ({"text": "a " * 100_000}, "too long: the prompt has "),
        ({"chat": {"messages": []}}, "invalid: chat"),
        ({"text": "a", "exclude": False}, "invalid: exclude_input_in_output"),
    ],
)
def test_a_wrong_request_is_refused(tell: Asker, request_: dict[str, Any], error: str) -> None:
    assert error in tell(**request_).error
    assert tell("still there?", sampling=GREEDY).text


def test_a_text_ends_where_the_context_ends(tell: Asker) -> None:
    prompt = "a " * (tiny_llama.CONTEXT_LENGTH - 200)
    sampling = {"temperature": 0.0, "max_tokens": None, "ignore_eos": True}
    answer = tell(prompt, sampling=sampling, returns=["num_input_tokens", "num_output_tokens", "finish_reason"])
    tokens = int(answer.responses[0]["num_input_tokens"]) + answer.total("num_output_tokens")
    assert tokens == tiny_llama.CONTEXT_LENGTH
    assert answer.responses[-1]["finish_reason"] == "length"


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_who_is_gone_frees_the_place(served: Any, how: str) -> None:
    def counted(name: str) -> float:
        return metric(served.server.metrics_url, f"generate_{name}", NAME)

    before = counted("requests_cancelled_total")
    with asking(served.grpc_url, NAME, "on and on", sampling=LONG) as stream:
        assert stream.next() is not None
        assert wait_for(lambda: counted("requests_running") == 1)
        if how == "cancel":
            stream.cancel()
        else:
            stream._client._channel.close()
        assert wait_for(lambda: counted("requests_cancelled_total") == before + 1)
    assert wait_for(lambda: counted("requests_running") == 0)


def test_metrics_say_what_was_done(served: Any, tell: Asker) -> None:
    def counted(name: str) -> float:
        return metric(served.server.metrics_url, f"generate_{name}", NAME)

    names = (
        "prompt_tokens_total",
        "output_tokens_total",
        "requests_finished_total",
        "time_to_first_token_seconds_count",
    )
    wait_for(lambda: counted("requests_running") == 0)
    before = {name: counted(name) for name in names}
    answer = tell("a parcel", sampling=GREEDY, returns=["num_input_tokens"])
    due = (int(answer.responses[0]["num_input_tokens"]), GREEDY["max_tokens"], 1, 1)
    assert wait_for(lambda: counted("requests_finished_total") > before["requests_finished_total"])
    assert tuple(counted(name) - before[name] for name in names) == due
    assert counted("time_per_output_token_seconds_sum") > 0


def test_a_full_queue_refuses(served: Any) -> None:
    name = "generate_narrow"
    tiny_llama.write_model(served.repository, name, {"max_num_seqs": "1", "max_queue_size": "1"})
    served.load(name)
    with asking(served.grpc_url, name, "on and on", sampling=LONG) as first:
        assert first.next() is not None
        with asking(served.grpc_url, name, "next", sampling=LONG) as second:
            time.sleep(0.2)
            assert "queue full: 1 requests are waiting" in ask(served.grpc_url, name, "a", sampling=GREEDY).error
            first.cancel()
            assert second.next() is not None, "the place was not freed"
            second.cancel()
    assert ask(served.grpc_url, name, "a", sampling=GREEDY).text


@pytest.mark.parametrize("speculation", ["prompt_lookup", "draft"])
def test_guessing_ahead_changes_no_greedy_text(served: Any, tell: Asker, speculation: str) -> None:
    name = f"generate_{speculation}"
    tiny_llama.write_model(served.repository, name, {"speculation": speculation}, draft=speculation == "draft")
    served.load(name)
    requests = [{"text": text, "sampling": GREEDY} for text in PROMPTS[:4]]
    texts = [answer.text for answer in ask_together(served.grpc_url, name, requests)]
    assert texts == [tell(**request).text for request in requests]
    with asking(served.grpc_url, name, "on and on", sampling=LONG) as stream:
        assert stream.next() is not None
        stream.cancel()
    assert wait_for(lambda: metric(served.server.metrics_url, "generate_requests_cancelled_total", name) == 1)
    assert wait_for(lambda: metric(served.server.metrics_url, "generate_requests_running", name) == 0)
    served.unload(name)


def test_a_version_that_cannot_be_served_says_why(served: Any) -> None:
    name = "generate_wrong"
    folder: Path = tiny_llama.write_model(served.repository, name, {"speculaton": "draft"})
    assert folder.is_dir()
    with pytest.raises(Exception, match="did you mean speculation"):
        served.load(name)
