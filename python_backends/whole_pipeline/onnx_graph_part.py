"""The ONNX graph of a whole pipeline: a session of ONNX Runtime, set as Triton's own onnxruntime backend would be.

The work is done in the files of the onnxruntime stand-in, to which this folder holds links: the parameters, the graph
level in `optimization` and the execution accelerators of config.pbtxt mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conch_backend_config import find_model_file, read_config
from conch_ort_session import available_providers, open_session, run_options, runner, signature_of
from conch_ort_settings import choose_providers, ignored_parameters, session_settings
from conch_ort_signature import match
from pipeline_part import Answer, Ask, Refusal, as_one, row_count, shared_out

PARAMETERS = (
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "do_copy_in_default_stream",
    "enable_mem_arena",
    "enable_mem_pattern",
    "execution_mode",
    "gpu_mem_limit",
    "inter_op_thread_count",
    "intra_op_thread_count",
    "memory.enable_memory_arena_shrinkage",
    "merge_rows",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.use_device_allocator_for_initializers",
)
DEFAULT_FILE = "model.onnx"


class OnnxGraph:
    """Runs the graph: once for each request, or, with the parameter ``merge_rows``, once for those of equal shape.

    Merging suits small graphs, where a run costs more than a row. Rows of dynamic int8 must stay apart: they share a
    scale, and each answer would depend on the others.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, *, gpu: bool, device_id: int) -> None:
        """Open the session: ``config`` is the pipeline's, with the graph's own inputs, outputs and parameters.

        Raises: LoadFailed when settings, config and graph do not agree; ValueError for a flag that is none.
        """
        parameters = dict(config.get("parameters", {}))
        merge = parameters.pop("merge_rows", {"string_value": "false"})["string_value"]
        if merge not in ("true", "false"):
            raise ValueError(f"parameter merge_rows: got {merge!r}, expected true or false")
        self._merge = merge == "true"
        self._most_rows = int(config["max_batch_size"])
        parsed = read_config({**config, "parameters": parameters})
        settings = session_settings(parsed)
        # Not KIND_AUTO: who puts a whole pipeline on a GPU has asked for it.
        choice = choose_providers(
            parsed, gpu=gpu, gpu_was_asked_for=gpu, device_id=device_id, available=available_providers()
        )
        path = find_model_file(folder, parsed, DEFAULT_FILE)
        session = open_session(path, parsed.model_name, settings, choice)
        signature = signature_of(session, parsed.model_name)
        match(parsed, signature)
        self._session_run = runner(session, parsed, signature, run_options(settings))
        self.notes = (*choice.warnings, *ignored_parameters(parsed))

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer a request, in order."""
        if not self._merge or len(asks) < 2:
            return [self._run(ask) for ask in asks]
        answers: dict[int, Answer] = {}
        for places in self._alike(asks):
            merged = self._run_merged([asks[place] for place in places])
            answers.update(zip(places, merged, strict=True))
        return [answers[place] for place in range(len(asks))]

    def _alike(self, asks: Sequence[Ask]) -> list[list[int]]:
        """The places of requests that one run can answer: of equal shapes, and no more rows than the model takes."""
        groups: list[list[int]] = []
        filling: dict[Any, tuple[list[int], int]] = {}
        for place, ask in enumerate(asks):
            shapes = tuple((name, array.shape[1:]) for name, array in sorted(ask.tensors.items()))
            group, rows = filling.get(shapes, ([], 0))
            if not group or rows + row_count(ask) > self._most_rows:
                group, rows = [], 0
                groups.append(group)
            group.append(place)
            filling[shapes] = group, rows + row_count(ask)
        return groups

    def _run_merged(self, asks: Sequence[Ask]) -> list[Answer]:
        """One run for all; each by itself where there is one, where it fails, or where rows do not stay apart."""
        if len(asks) > 1:
            whole = self._run(as_one(asks))
            parts = None if isinstance(whole, Refusal) else shared_out(whole, asks)
            if parts is not None:
                return list(parts)
        return [self._run(ask) for ask in asks]

    def _run(self, ask: Ask) -> Answer:
        # Types and shapes need no check: Triton holds requests to the config, and `match` held that to the graph.
        wanted = list(ask.wanted)
        try:
            outputs = self._session_run(dict(ask.tensors), wanted)
        except Exception as error:  # whatever ONNX Runtime raises
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in ask.tensors.items())
            return Refusal(f"the model failed: {error}\n  got:      {shapes}", invalid=False)
        return dict(zip(wanted, outputs, strict=True))
