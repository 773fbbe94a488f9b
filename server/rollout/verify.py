"""Ask the live server right after a switch: the new version, and every ensemble that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from conch.repository import Repository
from conch.switching import side_models
from server.options import GRPC_HEADER_PREFIX
from server.rollout import trial
from server.rollout.answers import Limits
from server.rollout.asking import put, served
from server.rollout.candidate import Candidate
from server.rollout.live import Live
from server.rollout.switch import Verify
from server.rollout.trial import Expectations, Tried

if TYPE_CHECKING:
    from clients import Client

TIMEOUT_S = 60.0
# The live server may have a GPU, and add in another precision than the machine of the trial.
AS_IN_TRIAL = 1e-2


def on(
    live: Live,
    candidate: Candidate,
    expect: Expectations,
    tried: Tried | None,
    headers: Mapping[str, str],
) -> Verify:
    """A function that asks one model in one version, and raises RepositoryError for a wrong answer.

    Answers are held to the manifest's, and to those of the trial.
    """
    by_name = {model.name: model for model in candidate.models}
    limits = Limits(expect.limits.absolute, AS_IN_TRIAL)

    def verify(name: str, version: int) -> None:
        if not live.runs or (tried is not None and name in tried.skipped):
            return
        # A new client each time: one remembers the signature that a model had before.
        with client(live, headers) as asking:
            model = served(asking, name, version)
            side = side_models.parse(name)  # a canary stands for the model that was tried
            public = side.model if side is not None and side.model in by_name else name
            known = by_name.get(public)
            if tried is not None and public in tried.asked:
                requests = tried.asked[public].due()
            elif known is not None:
                requests = trial.requests_for(known, model.signature, expect, public=public == candidate.name)
            else:
                requests = trial.requests_of_user(model.signature, expect.serving.get(name))
            parity = known.manifest.parity if known is not None and known.manifest is not None else ()
            for request in requests:
                put(model, request, parity, limits)

    return verify


def of_versions(live: Live, repository: Repository, headers: Mapping[str, str]) -> Verify:
    """For a version that is there already: asked with its own golden requests. For `rollback` and `promote`."""

    def verify(name: str, version: int) -> None:
        if not live.runs:
            return
        own = trial.manifest_of(repository, name, version)
        with client(live, headers) as asking:
            model = served(asking, name, version)
            requests = trial.recorded_or_made_up(own, model.signature)
            for request in requests:
                put(model, request, own.parity if own is not None else (), Limits(None, AS_IN_TRIAL))

    return verify


def client(live: Live, headers: Mapping[str, str]) -> Client:
    """A client of the live server."""
    from clients import Client

    sent = {GRPC_HEADER_PREFIX + k.removeprefix(GRPC_HEADER_PREFIX): v for k, v in headers.items()}
    return Client(live.url, timeout_s=TIMEOUT_S, headers=sent)
