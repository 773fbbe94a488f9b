"""The limit of generation: OpenVINO GenAI's continuous batching with no server, nothing sent, no text made of tokens.

    python -m perf.contenders.bare_generation

CONCH_BENCH holds {"folder", "cache_gb", "prefix_caching", "options"}: the very files that ours serve, and options of
OpenVINO. Reads a JSON object a line:
{"prompts", "tokens"}, which writes {"texts"}, greedy, one after the other; or {"nonce", "mean_tokens", "streams",
"duration_s", "warmup_s"}, which writes a StreamResult.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
import time
from typing import Any

import openvino_genai

from perf.contenders.generation_work import work
from perf.stream_load import Log, Stream, StreamResult

SETTINGS: dict[str, Any] = json.loads(os.environ.get("CONCH_BENCH", "{}"))


class Bare:
    """The engine, with the library's own settings but for what CONCH_BENCH says."""

    def __init__(self) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = SETTINGS["cache_gb"]
        scheduler.enable_prefix_caching = SETTINGS["prefix_caching"]
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            SETTINGS["folder"], scheduler, "CPU", SETTINGS["options"]
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        self._ids = itertools.count()

    def _add(self, prompt: str, tokens: int) -> Any:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.apply_chat_template = False
        return self._pipeline.add_request(next(self._ids), self._tokenizer.encode(prompt).input_ids, config)

    def text(self, prompt: str, tokens: int) -> str:
        """One text by itself."""
        handle = self._add(prompt, tokens)
        made: list[int] = []
        while len(made) < tokens:
            self._pipeline.step()
            made += _read(handle)
        return str(self._tokenizer.decode(made))

    def load(self, nonce: str, mean_tokens: int, streams: int, duration_s: float, warmup_s: float) -> StreamResult:
        """So many texts at a time, each followed by the next."""
        asked, log = work(nonce, mean_tokens), Log()
        lines = [_Line(log, asked.lengths, number * len(asked.prompts) // streams) for number in range(streams)]
        begin_s = time.perf_counter() + warmup_s
        end_s = begin_s + duration_s
        while time.perf_counter() < end_s:
            for line in lines:
                if not line.left:
                    line.begin()
                    line.handle = self._add(asked.prompts[line.turn % len(asked.prompts)], line.left)
            self._pipeline.step()
            for line in lines:
                if made := len(_read(line.handle)):
                    line.arrived(1)
                    line.left -= made
                    if not line.left:
                        line.ended(True)
        for line in lines:
            line.handle.cancel()
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return log.result(streams, begin_s, end_s, 0)


class _Line(Stream):
    """One stream's handle, and the tokens that are to come."""

    handle: Any = None
    left = 0

    def begin(self) -> None:
        """Another text."""
        self.asked()
        self.left = self.length


def _read(handle: Any) -> list[int]:
    return [token for output in handle.read().values() for token in output.generated_ids] if handle.can_read() else []


def main() -> None:
    """Answer commands until standard input ends."""
    bare = Bare()
    for line in sys.stdin:
        command = json.loads(line)
        if "prompts" in command:
            answer = {"texts": [bare.text(prompt, command["tokens"]) for prompt in command["prompts"]]}
        else:
            answer = dataclasses.asdict(bare.load(**command))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
