"""What a model's config becomes: policies that users gave, holds of ours, numbers, and files beside config.pbtxt."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch import ledger
from conch.errors import ConfigError, RepositoryError
from conch.ledger import Alias, Held
from conch.model_config import ModelConfig, parse, selected_versions
from conch.repository import Repository
from conch.switching import journal, plan, run, side_models
from conch.switching.journal import Journal
from conch.switching.policy import policy_key, policy_text, same_but_policy, with_policy_text, with_versions
from conch.switching.taker import NoServer
from tests.fakes.versioned_models import member_config, stage_model, stage_pipeline, stage_single


class Knowing(NoServer):
    """A server that has failed to load some versions."""

    def known(self, name: str) -> list[int]:
        return [1, 2, 3]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "models")
    with repository.stage() as stage:
        stage_single(stage, 1)
        stage.commit()
    return repository


def give_policy(repository: Repository, policy: str) -> None:
    path = repository.root / "m" / "config.pbtxt"
    path.write_text(path.read_text() + policy)


def planned(repository: Repository, *, keep_loaded: bool = False, policy: str = "") -> Journal:
    with repository.stage() as stage:
        stage_model(stage, with_policy_text(member_config("m", 2), policy), 2)
        return plan.publish(repository, stage.path, stage.models, NoServer(), keep_loaded=keep_loaded)


@pytest.mark.parametrize(
    ("live", "candidate", "keep_loaded", "after"),
    [
        ("", "", False, ("latest", (1,))),
        ("version_policy { latest { num_versions: 3 } }", "", False, ("latest", (3,))),
        ("version_policy { all { } }", "", False, ("all", ())),
        ("version_policy { all { } }", "version_policy { latest { num_versions: 2 } }", False, ("latest", (2,))),
        ("", "", True, ("latest", (2,))),
        ("version_policy { all { } }", "", True, ("all", ())),
        ("version_policy { latest { num_versions: 3 } }", "", True, ("latest", (3,))),
    ],
)
def test_a_users_own_policy_survives(
    repository: Repository, live: str, candidate: str, keep_loaded: bool, after: tuple[str, tuple[int, ...]]
) -> None:
    give_policy(repository, live)
    journal = planned(repository, keep_loaded=keep_loaded, policy=candidate)
    assert policy_key(parse(journal.public.after)) == after


def test_a_hold_of_ours_does_not_survive(repository: Repository) -> None:
    give_policy(repository, "version_policy { specific { versions: [1] } }")
    held = Held(1, "version_policy { latest { num_versions: 2 } }")
    ledger.update(repository.root, lambda before: before.with_held("m", held))
    journal = planned(repository)
    assert policy_key(parse(journal.public.after)) == ("latest", (2,))
    assert journal.public.held is None
    assert journal.public.pinned == journal.public.before  # it is pinned already


def test_a_policy_that_would_not_serve_the_new_version_is_refused(repository: Repository) -> None:
    give_policy(repository, "version_policy { specific { versions: [1] } }")
    with pytest.raises(RepositoryError, match="does not let version 2 serve") as refused:
        planned(repository)
    assert "version_policy" in str(refused.value.got)


def test_comments_in_a_config_stay_when_it_is_pinned(repository: Repository) -> None:
    give_policy(repository, "# tuned on a Friday\n")
    pinned = planned(repository).public.pinned
    assert "# tuned on a Friday" in pinned
    assert policy_key(parse(pinned)) == ("specific", (1,))


def test_a_config_that_says_the_same_is_left_as_it_was_written(repository: Repository) -> None:
    give_policy(repository, "# tuned on a Friday\n")
    with repository.stage() as stage:
        stage_single(stage, 2, config_k=1)
        stage.commit()
    assert "# tuned on a Friday" in (repository.root / "m" / "config.pbtxt").read_text()


def test_a_model_without_a_config_is_pinned_and_gets_one(repository: Repository) -> None:
    (repository.root / "m" / "config.pbtxt").unlink()
    public = planned(repository).public
    assert public.before == ""
    assert policy_key(parse(public.pinned)) == ("specific", (1,))
    assert parse(public.pinned).max_batch_size == 0
    assert "max_batch_size" not in public.pinned  # else Triton would not complete it any more


def test_numbers_go_on_from_canaries(repository: Repository) -> None:
    with repository.stage() as stage:
        stage_single(stage, 2)
        journal = plan.canary(repository, stage.path, stage.models)
        run.Switch(journal, repository.root, repository.staging, NoServer()).run(stage.path, lambda: None)
    assert sorted(p.name for p in repository.root.iterdir()) == ["m", "m.v2"]
    assert planned(repository).version == 3


def test_a_number_that_is_taken_is_refused(repository: Repository) -> None:
    with repository.stage() as stage, pytest.raises(RepositoryError, match="has a version 1 already"):
        stage_single(stage, 2)
        stage.commit(version=1)


@pytest.mark.parametrize(("cached", "version"), [(True, 4), (False, 2)])
def test_a_cached_model_does_not_get_the_number_of_a_version_that_was_taken_back(
    repository: Repository, cached: bool, version: int
) -> None:
    config = member_config("m", 2)
    config.response_cache.enable = cached
    with repository.stage() as stage:
        stage_model(stage, config, 2)
        assert plan.publish(repository, stage.path, stage.models, Knowing()).version == version


def test_labels_beside_a_config_change_with_it_and_back(repository: Repository) -> None:
    (repository.root / "m" / "labels.txt").write_text("old")

    def refuse() -> None:
        assert (repository.root / "m" / "labels.txt").read_text() == "new"
        raise RuntimeError

    with repository.stage() as stage:
        stage_single(stage, 2)
        (stage.model_path("m") / "labels.txt").write_text("new")
        (stage.model_path("m") / "more.txt").write_text("more")
        journal = plan.publish(repository, stage.path, stage.models, NoServer())
        with pytest.raises(RuntimeError):
            run.Switch(journal, repository.root, repository.staging, NoServer()).run(stage.path, refuse)
    assert {p.name for p in (repository.root / "m").iterdir()} == {"1", "config.pbtxt", "labels.txt"}
    assert (repository.root / "m" / "labels.txt").read_text() == "old"


def test_a_version_without_a_manifest_gets_its_config_back(repository: Repository) -> None:
    with repository.stage() as stage:
        stage_single(stage, 2)
        stage.commit()
    assert parse(plan.activate(repository, "m", 1, NoServer()).public.after).parameters["k"].string_value == "1"


def test_a_pipeline_is_rolled_back_with_its_parts_and_held(repository: Repository) -> None:
    for k in (1, 2):
        with repository.stage() as stage:
            stage_pipeline(stage, k)
            stage.commit()
    switch = plan.activate(repository, "p", 1, NoServer(), by="rollback")
    assert [part.name for part in switch.parts] == ["p_pre", "p_model", "p_post", "p"]
    assert {part.held for part in switch.parts} == {Held(1, "")}
    assert switch.route == journal.SIDE
    assert [selected_versions(parse(part.after), [1, 2]) for part in switch.parts] == [(1,)] * 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("m.v3", side_models.SideModel("m", 3, False)),
        ("m.v3.next", side_models.SideModel("m", 3, True)),
        ("a.v2.v3", side_models.SideModel("a.v2", 3, False)),
        ("m", None),
        ("m.v0", None),
        ("m.v3x", None),
        (".v3", None),
    ],
)
def test_a_side_models_name_says_of_what_it_is(name: str, told: side_models.SideModel | None) -> None:
    assert side_models.parse(name) == told


@pytest.mark.parametrize("policy", ["", "version_policy { all { } }", "version_policy { specific { versions: 2 } }"])
def test_a_policy_survives_as_text(policy: str) -> None:
    config = with_policy_text(ModelConfig(name="m"), policy)
    again = with_policy_text(with_versions(config, [7]), policy_text(config))
    assert again == config
    assert same_but_policy(config, with_versions(config, [9]))


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="no version policy"):
        with_policy_text(ModelConfig(name="m"), "version_policy { newest { } }")


def test_a_journal_is_read_as_it_was_written(repository: Repository) -> None:
    (repository.root / "m" / "labels.txt").write_text("old")
    with repository.stage() as stage:
        stage_single(stage, 2)
        (stage.model_path("m") / "labels.txt").write_text("new")
        written = plan.publish(repository, stage.path, stage.models, NoServer())
    journal.write(written, repository.staging)
    assert journal.read(repository.staging) == written


@pytest.mark.parametrize("text", ["{", '{"format": 2}', "[]", '{"format": 1}'])
def test_a_journal_that_cannot_be_read_is_an_error_that_stops(repository: Repository, text: str) -> None:
    (repository.staging / "journal.json").write_text(text)
    with pytest.raises(RepositoryError, match=r"cannot be read|another conch"), repository.stage() as stage:
        stage_single(stage, 2)
        stage.commit()
    assert repository.versions("m") == [1]


def name_it(repository: Repository, name: str) -> None:
    ledger.update(repository.root, lambda now: now.with_alias(name, "stable", Alias(name, 1)))


def test_a_version_with_a_name_stays_loaded(repository: Repository) -> None:
    name_it(repository, "m")
    with repository.stage() as stage:
        stage_model(stage, repository.config("m"), 2)
        after = plan.publish(repository, stage.path, stage.models, NoServer()).public.after
    assert selected_versions(parse(after), [1, 2]) == (1, 2)


def test_a_name_that_leads_elsewhere_keeps_nothing(repository: Repository) -> None:
    ledger.update(repository.root, lambda now: now.with_alias("m", "canary", Alias("m.v9", 1)))
    with repository.stage() as stage:
        stage_model(stage, repository.config("m"), 2)
        after = plan.publish(repository, stage.path, stage.models, NoServer()).public.after
    assert selected_versions(parse(after), [1, 2]) == (2,)


def test_a_named_version_that_cannot_stay_is_not_unloaded(repository: Repository) -> None:
    name_it(repository, "m")
    with pytest.raises(RepositoryError, match="m@stable names version 1, which cannot stay loaded"):
        planned(repository)


def test_a_named_version_of_a_pipeline_is_not_unloaded(repository: Repository) -> None:
    with repository.stage() as stage:
        stage_pipeline(stage, 1)
        stage.commit()
    name_it(repository, "p")
    with repository.stage() as stage, pytest.raises(RepositoryError, match="a pipeline"):
        stage_pipeline(stage, 2)
        plan.publish(repository, stage.path, stage.models, NoServer())
