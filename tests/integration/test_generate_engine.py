"""The engine itself, step by step, without Triton: prompts in parts, cached beginnings, companions, guesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import tiny_llama
from tests.fakes.generate_code import engine_module

pytest.importorskip("openvino_genai", reason="the extra generate is not installed")
pytest.importorskip("optimum.intel", reason="the converter is not installed: see export/llm/convert.py")

pytestmark = pytest.mark.integration

GREEDY = {"temperature": 0.0, "ignore_eos": True}
PROMPT = [5 + (7 * place) % 380 for place in range(1000)]
# Words that come back, so that there is something to guess from.
AGAIN = [0, *[20, 31, 42, 53, 64, 75, 86, 97] * 12]

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_version(tmp_path_factory.mktemp("generate") / "1", draft=True)


@pytest.fixture
def opened(version: Path) -> Open:
    def make(**parameters: str) -> Any:
        settings = engine_module("generate_settings").read_settings(version, {"threads": "2", **parameters})
        return engine_module("generate_engine").Engine(settings)

    return make


def say(engine: Any, prompt: list[int], tokens: int = 1, requests: int = 1) -> tuple[list[int], int]:
    """The tokens of one request, and how many steps they took."""
    handle = engine.add(0, prompt, engine_module("generate_sampling").Sampling(**GREEDY), tokens)
    made: list[int] = []
    steps = 0
    while len(made) < tokens:
        engine.step(None, requests)
        made += engine.read(handle).tokens
        steps += 1
    while engine.busy():
        engine.step(None, 0)
    return made, steps


def test_a_long_prompt_is_read_in_parts(opened: Open) -> None:
    assert say(opened(), PROMPT)[1] == 4
    assert say(opened(max_num_batched_tokens="1024"), PROMPT)[1] == 1


@pytest.mark.parametrize(("caching", "steps"), [("true", 1), ("false", 4)])
def test_a_prompt_that_began_alike_is_not_read_again(opened: Open, caching: str, steps: int) -> None:
    engine = opened(enable_prefix_caching=caching)
    say(engine, PROMPT)
    assert say(engine, [*PROMPT[:900], 7, 8, 9])[1] == steps


@pytest.mark.parametrize("speculation", ["prompt_lookup", "draft"])
def test_guessing_right_takes_fewer_steps(opened: Open, speculation: str) -> None:
    said, steps = say(opened(execution_mode="accuracy"), AGAIN, 48)
    guessed, fewer = say(opened(execution_mode="accuracy", speculation=speculation), AGAIN, 48)
    assert guessed == said
    assert fewer < steps


def test_companions_fill_a_small_step_and_are_counted_nowhere(opened: Open) -> None:
    engine = opened(threads="4")
    sampling = engine_module("generate_sampling").Sampling(**GREEDY)
    handles = [engine.add(number, PROMPT[: 20 + number], sampling, 400) for number in range(2)]
    engine.step(None, 2)
    engine.step(None, 2)
    metrics = engine._pipelines[None].get_metrics()
    assert (metrics.requests, metrics.scheduled_requests) == (4, 4)
    assert (engine.usage().running, engine.usage().waiting) == (2, 0)
    for _ in range(300):  # longer than a companion lives
        engine.step(None, 2)
    assert engine._pipelines[None].get_metrics().scheduled_requests >= 4
    for handle in handles:
        handle.cancel()
    engine.step(None, 0)
    assert engine.busy() == []
    assert engine.usage().running == 0


def test_performance_has_no_companions(opened: Open) -> None:
    engine = opened(execution_mode="performance", threads="4")
    handle = engine.add(0, PROMPT[:20], engine_module("generate_sampling").Sampling(**GREEDY), 400)
    engine.step(None, 1)
    assert engine._pipelines[None].get_metrics().requests == 1
    handle.cancel()


@pytest.mark.parametrize(("gap", "mixed_up"), [(1, False), (0, True)])
def test_requests_that_begin_alike_in_one_step_are_mixed_up_by_the_engine(
    opened: Open, gap: int, mixed_up: bool
) -> None:
    """Why generate_loop.py starts one request a step. When the second case fails, OpenVINO GenAI is mended."""
    sampling = engine_module("generate_sampling").Sampling(**GREEDY, logprobs=True)
    others = [[*PROMPT[:40], 9 + number, 8, 7] for number in range(3)]

    def first_logprobs(engine: Any, prompts: list[list[int]], steps_between: int) -> list[float]:
        handles = []
        for number, prompt in enumerate(prompts):
            handles.append(engine.add(10 + number, prompt, sampling, 4))
            for _ in range(steps_between):
                engine.step(None, 1)
        while engine.busy():
            engine.step(None, 1)
        return [engine.read(handle).logprobs[0] for handle in handles]

    alone = first_logprobs(opened(execution_mode="accuracy", enable_prefix_caching="false"), others, 9)
    engine = opened(execution_mode="accuracy")
    cancelled = engine.add(9, PROMPT[:40], sampling, 60)
    engine.step(None, 1)
    cancelled.cancel()
    engine.step(None, 1)
    assert (first_logprobs(engine, others, gap) != pytest.approx(alone, abs=1e-3)) is mixed_up
