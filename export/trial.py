"""Load the staged version in a scratch Triton and ask it, before anyone else can.

This is what no check of files can tell: whether the configs, the code and the weights work together in the real server.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from conch.errors import ClientError, ExportError
from conch.manifest import Golden, Parity
from conch.model_config import signature_of
from conch.repository import Stage
from conch.tensor_spec import Array, ModelSignature
from export import check_graph, golden, parity
from export.options import ExportOptions
from export.source import Reference, Source, Tensors
from export.write_model import StagedModel

# A scratch server loads one version; a large model on a small machine may take minutes.
START_TIMEOUT_S = 300.0
REQUEST_TIMEOUT_S = 120.0

# Enough to see that the parts work together; all samples were compared on the file.
MAX_REQUESTS = 16


@dataclass(frozen=True)
class Trial:
    """What the scratch server said: a note for the report, parity of the public outputs, golden answers by model."""

    note: str
    parity: tuple[Parity, ...] = ()
    golden: Mapping[str, tuple[Golden, ...]] = field(default_factory=dict)


def run(stage: Stage, models: Sequence[StagedModel], source: Source, options: ExportOptions) -> Trial:
    """Serve the stage, ask the public model, and compare with the source's own answers.

    Raises: ServerError when the version does not load, ExportError when it does not answer, ParityError when it answers
    otherwise.
    """
    if not options.trial:
        return Trial("left out (--no-trial)")
    if importlib.util.find_spec("pytriton") is None:
        return Trial("left out: nvidia-pytriton is not installed (pip install -e '.[server]')")
    from clients import Client
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    public = models[-1]
    signature = signature_of(public.config)
    server = ServerOptions(control="none", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=5)
    with (
        EmbeddedServer(stage.path, server, start_timeout_s=START_TIMEOUT_S) as triton,
        Client(triton.grpc_url, timeout_s=REQUEST_TIMEOUT_S) as client,
    ):

        def ask(tensors: Tensors) -> dict[str, Array]:
            try:
                return client.infer(public.name, tensors)
            except ClientError as error:
                raise ExportError(
                    "the scratch Triton loaded the version, and did not answer a sample",
                    where=public.name,
                    got=error,
                    fix="the version was not added; mend what is named above",
                ) from error

        return check(ask, public.name, signature, source, options)


def check(ask: Reference, name: str, signature: ModelSignature, source: Source, options: ExportOptions) -> Trial:
    """Ask, compare, and record: ``ask`` is the served model. Raises: ExportError, ParityError."""
    requests = _requests(source, signature)
    answers = [ask(request) for request in requests]
    reference = source.reference if source.pipeline is None else source.pipeline.reference
    known = iter(answers)
    rows = parity.compare(
        lambda _: next(known),
        reference or (lambda _: {}),
        requests,
        signature,
        precision=options.precision,
        atol=options.atol if options.atol is not None else source.tolerances.get(options.precision),
    )
    together = _stack(requests[: min(3, signature.max_batch_size)]) if source.pipeline is not None else None
    if together is not None:
        _check_batch(ask, together, answers, signature, options)
    recorded = (golden.record(i, o, signature) for i, o in zip(requests, answers, strict=True))
    kept = tuple(one for one in recorded if one is not None)[: golden.MAX_REQUESTS]
    return Trial(f"loaded in Triton, {len(requests)} requests answered", rows, {name: kept})


def _requests(source: Source, signature: ModelSignature) -> list[dict[str, Array]]:
    """Real public requests of a pipeline, each a batch of 1; of a model alone, also batches of its samples."""
    if source.pipeline is not None:
        return [dict(request) for request in source.pipeline.requests[:MAX_REQUESTS]]
    samples = [dict(sample) for sample in source.samples]
    if signature.batched:
        samples = [{name: array[:1] for name, array in sample.items()} for sample in samples]
    return [*samples[:MAX_REQUESTS], *check_graph.probes(source.samples, signature)]


def _stack(requests: Sequence[Tensors]) -> dict[str, Array] | None:
    """Requests as one batch; None where their shapes differ, or there is no batch."""
    if len(requests) < 2:
        return None
    shapes = [{name: array.shape for name, array in request.items()} for request in requests]
    if any(shape != shapes[0] for shape in shapes):
        return None
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def _check_batch(
    ask: Reference,
    together: Tensors,
    answers: Sequence[Tensors],
    signature: ModelSignature,
    options: ExportOptions,
) -> None:
    """A batch must come back as one, with full precision as the same answers: padding must not leak into them."""
    size = next(iter(together.values())).shape[0]
    answer = ask(together)
    for spec in signature.outputs:
        if answer[spec.name].shape[:1] != (size,):
            raise ExportError(
                f"output {spec.name} of a batch comes back in another size",
                got=list(answer[spec.name].shape),
                expected=f"{size} rows",
            )
    alone = _stack(answers[:size])
    if alone is not None and options.precision == "fp32":
        parity.compare(lambda _: answer, lambda _: alone, [together], signature, atol=options.atol)
