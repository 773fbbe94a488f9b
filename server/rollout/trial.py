"""Try a candidate in a scratch Triton before anyone else meets it.

It must load, with every ensemble that uses it; give the answers that its manifest knows; answer in the right shapes and
with finite numbers where nobody knows the answer; and be quick enough, when a budget is given.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clients.compare import Differences, OutputDifference
from conch.errors import ConchError, RepositoryError, ServerError
from conch.manifest import Golden, Manifest, Parity
from conch.model_config import ModelConfigMessage
from conch.repository import Repository
from conch.tensor_spec import ModelSignature
from server.rollout import answers, latency
from server.rollout.answers import Limits, Request, Tensors
from server.rollout.asking import Served, put, served
from server.rollout.candidate import Candidate, CandidateModel
from server.rollout.scratch_repository import Scratch

# A scratch server loads little; a large model on a small machine may take minutes.
START_TIMEOUT_S = 600.0
REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Asked:
    """The requests that one model was asked, and the answers that the scratch server gave.

    ``steady`` says of each whether the model answered the same when it was asked again.
    """

    requests: tuple[Request, ...]
    answers: tuple[Tensors, ...]
    steady: tuple[bool, ...]

    def due(self) -> tuple[Request, ...]:
        """The same requests with these answers, as they are due from the server that goes live with the version."""
        rows = zip(self.requests, self.answers, self.steady, strict=True)
        return tuple(Request(r.inputs, a if same else None, r.origin) for r, a, same in rows)

    def golden(self) -> tuple[Golden, ...]:
        """What of it a manifest keeps."""
        kept = [golden for r in self.due() if (golden := answers.record(r, r.outputs or {})) is not None]
        return tuple(kept[: answers.MAX_GOLDEN])


@dataclass(frozen=True)
class Tried:
    """What a trial found.

    ``asked`` is by model: the candidate's, and the ensembles that use it. ``differences`` are between the candidate's
    answers and those of the version that serves, ``compared_with`` says which. ``skipped`` are models that were not
    asked, and why.
    """

    asked: Mapping[str, Asked]
    differences: tuple[OutputDifference, ...] = ()
    compared_with: str = ""
    measured: latency.Measured | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectations:
    """What the answers are held to: ``golden`` of the command line before all else, then what manifests know.

    ``serving`` are the manifests of the versions that serve now, by model.
    """

    golden: tuple[Golden, ...] = ()
    serving: Mapping[str, Manifest] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


def can_run() -> bool:
    """Whether this machine has the server that trials are made with."""
    return importlib.util.find_spec("pytriton") is not None


@dataclass(frozen=True)
class Running:
    """A scratch server with the candidate in it."""

    client: Any
    scratch: Scratch

    def model(self, name: str) -> Served:
        """A model in the version that is tried. Raises: RepositoryError."""
        return served(self.client, name, self.scratch.versions[name])


@contextmanager
def load(scratch: Scratch) -> Iterator[Running]:
    """Serve the scratch repository until the block ends. Raises: ModelLoadError, ServerError."""
    if not can_run():
        raise ServerError(
            "there is no Triton on this machine to try the version with",
            expected="the package nvidia-pytriton",
            fix="pip install -e '.[server]', publish from a machine that has it, or leave the trial out: --no-trial",
        )
    elsewhere = [name for name, config in scratch.configs.items() if config.backend == "vllm"]
    if elsewhere:
        raise ServerError(
            "a model of vLLM's backend runs on GPUs in NVIDIA's image, and cannot be tried here",
            got=", ".join(elsewhere),
            fix="publish it without a trial: --no-trial",
        )
    from clients import Client
    from server.embedded import EmbeddedServer
    from server.options import ServerOptions

    options = ServerOptions(control="none", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    server = EmbeddedServer(scratch.root, options, start_timeout_s=START_TIMEOUT_S)
    try:
        with server, Client(server.grpc_url, timeout_s=REQUEST_TIMEOUT_S, retries=0) as client:
            try:
                yield Running(client, scratch)
            finally:
                server.kill()  # nobody else asks it: there is nothing to wait for
    finally:
        server.stop()


def run(running: Running, candidate: Candidate, expect: Expectations) -> Tried:
    """Ask the candidate's models and the ensembles that use them. Raises: RepositoryError at the first wrong answer."""
    asked: dict[str, Asked] = {}
    skipped: dict[str, str] = {}
    configs = running.scratch.configs
    for model in candidate.models:
        reason = _not_askable(configs[model.name])
        if reason is None and model.name != candidate.name and not answers.recorded(model.manifest):
            reason = f"nothing is known of its answers; it is asked through {candidate.name}"
        if reason is not None:
            skipped[model.name] = reason
            continue
        of_server = running.model(model.name)
        requests = requests_for(model, of_server.signature, expect, public=model.name == candidate.name)
        asked[model.name] = _ask_all(
            of_server, requests, model.manifest.parity if model.manifest else (), expect.limits
        )
    for name in running.scratch.users:
        reason = _not_askable(configs[name])
        if reason is not None:
            skipped[name] = reason
            continue
        of_server = running.model(name)
        asked[name] = _ask_all(
            of_server, requests_of_user(of_server.signature, expect.serving.get(name)), (), expect.limits
        )
    for name in candidate.names:
        if not running.client.ready(name, running.scratch.versions[name]):
            raise RepositoryError(f"{name} is no longer ready after its first requests", fix="see its code")
    differences, compared_with = _compare_with_serving(running, candidate, expect)
    return Tried(asked, differences, compared_with, None, skipped)


def _not_askable(config: ModelConfigMessage) -> str | None:
    if config.WhichOneof("scheduling_choice") == "sequence_batching":
        return "a model with sequences is not asked"
    return None


def requests_for(
    model: CandidateModel, signature: ModelSignature, expect: Expectations, *, public: bool
) -> tuple[Request, ...]:
    """What a model of the candidate is asked, the best that is known first. Raises: SignatureError."""
    if public and expect.golden:
        given = tuple(answers.from_golden(golden, "a request of --golden") for golden in expect.golden)
        for request in given:
            signature.check_inputs(dict(request.inputs))
        return given
    known = answers.recorded(model.manifest)
    return known or requests_of_user(signature, expect.serving.get(model.name))


def recorded_or_made_up(manifest: Manifest | None, signature: ModelSignature) -> tuple[Request, ...]:
    """What a version that is there already is asked."""
    suiting = tuple(r for r in answers.recorded(manifest) if answers.suits(r, signature))
    return suiting or answers.made_up(signature)


def requests_of_user(signature: ModelSignature, serving: Manifest | None) -> tuple[Request, ...]:
    """What is asked where the answers may rightly change: the inputs that the version that serves was asked with."""
    origin = "a golden request of the version that serves"
    before = [Request(r.inputs, None, origin) for r in answers.recorded(serving)]
    suiting = tuple(request for request in before if answers.suits(request, signature))
    return suiting or answers.made_up(signature)


def _ask_all(model: Served, requests: Sequence[Request], parity: Sequence[Parity], limits: Limits) -> Asked:
    found = [put(model, request, parity, limits) for request in requests]
    batch = answers.together(requests, model.signature)
    if batch is not None and not model.decoupled:
        put(model, Request(batch.inputs, None, batch.origin, batch.made_up))
    again = [model.ask(request.inputs) for request in requests]
    steady = tuple(answers.agree(a, b) for a, b in zip(found, again, strict=True))
    return Asked(tuple(requests), tuple(found), steady)


def _compare_with_serving(
    running: Running, candidate: Candidate, expect: Expectations
) -> tuple[tuple[OutputDifference, ...], str]:
    """How the candidate's answers differ from those of what serves: told, and not judged."""
    if _not_askable(running.scratch.configs[candidate.name]):
        return (), ""
    model = running.model(candidate.name)
    serving = answers.recorded(expect.serving.get(candidate.name))
    known = [r for r in serving if r.outputs is not None and answers.suits(r, model.signature)]
    if not known:
        return (), ""
    differences = Differences()
    for request in known:
        differences.add(request.outputs or {}, answers.as_text(model.ask(request.inputs)))
    return differences.outputs(), f"{len(known)} golden requests of the version that serves"


def measure(running: Running, name: str, asked: Asked, budget_ms: float) -> latency.Measured:
    """The latencies of the candidate and of what serves, in turns. Raises: RepositoryError, over the budget too."""
    requests = asked.requests

    def each(model: Served) -> Callable[[int], object]:
        return lambda index: model.ask(requests[index % len(requests)].inputs)

    baseline = None
    if name in running.scratch.before:
        before = running.model(running.scratch.before[name])
        if all(answers.suits(request, before.signature) for request in requests):
            baseline = each(before)
    measured = latency.measure(each(running.model(name)), baseline, budget_ms)
    latency.check(measured, name)
    return measured


def with_latency(running: Running, candidate: Candidate, tried: Tried, budget_ms: float) -> Tried:
    """What was found so far, and the latencies. Raises: RepositoryError, over the budget too."""
    asked = tried.asked.get(candidate.name)
    if asked is None:
        raise RepositoryError(
            "the latency cannot be measured", got=tried.skipped.get(candidate.name), fix="leave out --p99-ms"
        )
    return dataclasses.replace(tried, measured=measure(running, candidate.name, asked, budget_ms))


def manifest_of(live: Repository, name: str, version: int) -> Manifest | None:
    """The manifest of a version; None where there is none that can be read: nothing is known of its answers then."""
    try:
        return live.manifest(name, version)
    except ConchError:
        return None


def serving_manifests(live: Repository, versions: Mapping[str, int]) -> dict[str, Manifest]:
    """The manifests of versions, by model, where there is one."""
    found = ((name, manifest_of(live, name, version)) for name, version in versions.items())
    return {name: manifest for name, manifest in found if manifest is not None}
