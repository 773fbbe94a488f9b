"""Taking a canary down that somebody else began to take down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conch.errors import RepositoryError
from conch.repository import Repository
from conch.switching.taker import NoServer
from server.rollout.switch import side_by_side, take_down
from tests.fakes.versioned_models import PARTS, stage_pipeline


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A pipeline of one version, and a canary of it."""
    repository = Repository(tmp_path / "models")
    with repository.stage() as stage:
        stage_pipeline(stage, 1)
        stage.commit()
    with repository.stage() as stage:
        stage_pipeline(stage, 2)
        side_by_side(stage, NoServer(), verify=lambda name, version: None)
    return repository


def test_what_a_dead_process_has_left_goes_too(repository: Repository) -> None:
    shutil.rmtree(repository.root / "p.v2")
    shutil.rmtree(repository.root / "p_pre.v2")
    assert set(take_down(repository, "p", 2, NoServer())) == {"p.v2", "p_model.v2", "p_post.v2"}
    assert set(repository.model_names()) == {"p", *PARTS}


def test_a_canary_that_was_never_there_is_an_error(repository: Repository) -> None:
    with pytest.raises(RepositoryError, match=r"p\.v3"):
        take_down(repository, "p", 3, NoServer())
    assert {"p.v2", *(f"{part}.v2" for part in PARTS)} <= set(repository.model_names())
