"""OpenVINO GenAI's continuous batching: one pipeline for the model, and one for each of its adapters.

An adapter is part of a pipeline's graph: add_request() takes no adapter of its own. So each has a pipeline, with a copy
of the weights; the stepping thread steps all that have something to do.

A text must not depend on what else is in flight. Two things in OpenVINO (2026.4, CPU) make it do so, each by a last bit
that rounding to int8 then enlarges: keys and values are kept in few bits, by blocks that fill in another order; and a
step of fewer sequences than threads computes attention in another way. `execution_mode` steady keeps them whole, and
lets companions fill up small steps: requests whose text nobody reads. They cost little, since a step of few sequences
takes as long as a step of one. accuracy has no need of companions, and takes twice the time; performance leaves all to
OpenVINO.

Source: https://github.com/openvinotoolkit/openvino.genai (continuous_batching_pipeline.hpp, generation_config.hpp)
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import openvino_genai
from generate_made import Made, Usage
from generate_sampling import Sampling
from generate_settings import ADAPTERS, DRAFT, Settings

DEVICE = "CPU"
PRECISION = {
    "steady": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "accuracy": {"EXECUTION_MODE_HINT": "ACCURACY"},
    "performance": {},
}
# A companion lives this long, and has a successor then. What it says does not matter.
COMPANION_TOKENS = 256
COMPANION = Sampling(temperature=0.0, ignore_eos=True)


class Engine:
    """The pipelines of one model instance. Not for several threads at once."""

    def __init__(self, settings: Settings) -> None:
        """Load them, which takes seconds. Raises: RuntimeError, OpenVINO's."""
        self._settings = settings
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        self._pipelines = {name: self._open(name) for name in (None, *settings.adapters)}
        self._companions: dict[str | None, list[Any]] = {name: [] for name in self._pipelines}
        self._companion_ids = itertools.count(1 << 62)  # apart from those of requests

    def add(self, request_id: int, prompt: Sequence[int], sampling: Sampling, max_tokens: int) -> Any:
        """Start a request at the next step; returns its handle. Raises: RuntimeError when it cannot run."""
        return self._add(sampling.lora, request_id, prompt, self._generation_config(sampling, max_tokens))

    def _add(self, adapter: str | None, request_id: int, prompt: Sequence[int], config: Any) -> Any:
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))  # [1, tokens]
        return self._pipelines[adapter].add_request(request_id, ids, config)

    def busy(self) -> list[str | None]:
        """The adapters, and None for the model, whose pipelines have something to do."""
        return [name for name, pipeline in self._pipelines.items() if pipeline.has_non_finished_requests()]

    def step(self, adapter: str | None, requests: int) -> None:
        """One token, or more when it guessed right, for all of a pipeline's ``requests``. Raises: RuntimeError."""
        if self._settings.execution_mode == "steady":
            self._accompany(adapter, max(self._threads - requests, 0) if requests else 0)
        self._pipelines[adapter].step()

    def _accompany(self, adapter: str | None, count: int) -> None:
        """Have so many companions in a pipeline."""
        running = openvino_genai.GenerationStatus.RUNNING
        there = [handle for handle in self._companions[adapter] if handle.get_status() == running]
        for handle in there[count:]:
            handle.cancel()
        config = self._generation_config(COMPANION, COMPANION_TOKENS)
        # Nobody else begins like this: no part of the cache is theirs as well.
        prompts = [[random.randrange(100) for _ in range(4)] for _ in range(len(there), count)]
        new = [self._add(adapter, next(self._companion_ids), prompt, config) for prompt in prompts]
        self._companions[adapter] = there[:count] + new

    @staticmethod
    def read(handle: Any) -> Made:
        """What a request's handle has for us. Never blocks."""
        tokens: list[int] = []
        logprobs: list[float] = []
        reason = openvino_genai.GenerationFinishReason.NONE
        while handle.can_read():
            for output in handle.read().values():
                tokens += output.generated_ids
                logprobs += output.generated_log_probs
                reason = output.finish_reason
        if reason != openvino_genai.GenerationFinishReason.NONE:
            return Made(tokens, logprobs, reason.name.lower())
        if handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            return Made(tokens, logprobs, "dropped")
        return Made(tokens, logprobs, "")

    def reopen(self, adapter: str | None) -> None:
        """Replace a pipeline that failed: all that it was doing is gone. Raises: RuntimeError."""
        self._companions[adapter] = []
        self._pipelines[adapter] = self._open(adapter)

    def usage(self) -> Usage:
        """What the last steps did."""
        metrics = {name: pipeline.get_metrics() for name, pipeline in self._pipelines.items()}
        busy = self.busy()
        companions = sum(len(self._companions[name]) for name in busy)
        running = max(sum(metrics[name].scheduled_requests for name in busy) - companions, 0)
        present = sum(metrics[name].requests for name in busy) - companions
        cache = max(one.cache_usage for one in metrics.values())  # percent
        return Usage(running, max(present - running, 0), cache / 100)

    def _open(self, adapter: str | None) -> Any:
        settings = self._settings
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = settings.cache_size_gb
        # A prompt is cut in such parts, and steps of a part run together with the tokens of others.
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = settings.enable_prefix_caching
        scheduler.max_num_batched_tokens = settings.max_num_batched_tokens
        scheduler.max_num_seqs = settings.max_num_seqs + self._threads  # companions have places of their own
        options: dict[str, Any] = dict(PRECISION[settings.execution_mode])
        if settings.threads:
            options["INFERENCE_NUM_THREADS"] = settings.threads
        if settings.speculation == "prompt_lookup":
            options["prompt_lookup"] = True
        elif settings.speculation == "draft":
            options["draft_model"] = openvino_genai.draft_model(str(settings.folder / DRAFT), DEVICE)
        if adapter is not None:
            file = settings.folder / ADAPTERS / f"{adapter}.safetensors"
            options["adapters"] = openvino_genai.AdapterConfig(
                openvino_genai.Adapter(str(file)), mode=openvino_genai.AdapterConfig.Mode.MODE_STATIC
            )
        return openvino_genai.ContinuousBatchingPipeline(str(settings.folder), scheduler, DEVICE, options)

    def _generation_config(self, sampling: Sampling, max_tokens: int) -> Any:
        config = openvino_genai.GenerationConfig()
        config.apply_chat_template = False
        config.max_new_tokens = max_tokens
        config.min_new_tokens = sampling.min_tokens
        config.ignore_eos = sampling.ignore_eos
        config.stop_token_ids = set(self._settings.stop_token_ids | sampling.stop_token_ids)
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.repetition_penalty = sampling.repetition_penalty
        config.logprobs = int(sampling.logprobs)
        config.do_sample = not sampling.greedy
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            if sampling.top_k:
                config.top_k = sampling.top_k
            if sampling.min_p:
                config.min_p = sampling.min_p
            # Without one the engine would begin every request with the same.
            config.rng_seed = random.getrandbits(32) if sampling.seed is None else sampling.seed
        if self._settings.speculation != "none":
            config.num_assistant_tokens = self._settings.num_assistant_tokens
        if self._settings.speculation == "prompt_lookup":
            config.max_ngram_size = self._settings.max_ngram_size
        if sampling.json_schema is not None:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=sampling.json_schema)
        elif sampling.regex is not None:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(regex=sampling.regex)
        return config
