"""A canary from its first request to its promotion, under load from clients that give it a share of their own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from clients import Aliases, Client
from server.repo_view.aliasing import remove_alias, set_alias
from server.repo_view.live_states import Server
from server.rollout.going_back import promote
from server.rollout.publish import PublishOptions, run
from server.running import announce
from server.tiny_models import ASKED, pipeline_version, write_pipeline
from tests.load.checked import clean, pipeline_load

pytestmark = pytest.mark.integration

NAME = "reviews"


@pytest.fixture
def served(tmp_path: Path, start_server: Any) -> Any:
    root = tmp_path / "models"
    write_pipeline(root, NAME, 1)
    server = start_server(root, control="explicit", load_models=(NAME,))
    with announce(root, server.http_url, server.grpc_url, "explicit"):
        yield server


def beside(root: Path, k: int) -> None:
    """Bring version ``k`` up as the canary."""
    source = root.parent / f"stage-{k}"
    write_pipeline(source, NAME, k)
    run(source, PublishOptions(root, trial=False, alias="canary"))


def test_a_canary_comes_gets_its_share_goes_and_another_is_promoted(served: Any) -> None:
    root = served.repositories[0]
    aliases = Aliases(root, rng=random.Random(4), check_every_s=0.2)
    with pipeline_load(served, NAME, client_options={"aliases": aliases}, pause_s=0.01) as load:
        beside(root, 2)
        assert load.report().versions == ("1",)  # without a weight nobody meets it
        set_alias(root, f"{NAME}@canary", None, 0.5, Server())
        assert load.wait_for_any("2")
        with Client(served.grpc_url, aliases=root) as client:
            answer = client.infer(f"{NAME}@canary", ASKED)
        assert (pipeline_version(answer), answer.model) == ("2", f"{NAME}.v2")
        remove_alias(root, f"{NAME}@canary", Server())
        assert load.wait_for("1")
        beside(root, 3)
        set_alias(root, f"{NAME}@canary", None, 0.5, Server())
        assert load.wait_for_any("3")
        with load.update("promote"):
            switched = promote(root, f"{NAME}@canary", None, Server())
        assert load.wait_for(str(3))
    report = clean(load)
    assert set(report.versions) == {"1", "2", "3"}
    assert switched.name == NAME
    assert not [folder.name for folder in root.iterdir() if ".v" in folder.name]
