"""Aliases, canaries and shadows against a real server: both clients, both protocols, and the command line."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clients import Aliases, CanaryPassedOver, Shadow
from clients.cli import infer
from conch import ledger
from conch.errors import ModelNotFound
from conch.ledger import Alias
from server.tiny_models import ASKED, single_version, write_single
from tests.fakes.any_client import MODES, AnyClient, url_of
from tests.load.checked import single_load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(triton: Any) -> Any:
    """`tiny` serves 1 and 2, unversioned requests meet 2; its candidate 3 is the side model `tiny.v3`."""
    for version in (1, 2):
        write_single(triton.repository, "tiny", version, version=version)
    config = triton.repository / "tiny" / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy { all { } }\n")
    write_single(triton.repository, "tiny.v3", 3, version=3)
    triton.load("tiny")
    triton.load("tiny.v3")
    return triton


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of which only the aliases matter."""
    root = tmp_path / "repository"
    root.mkdir()
    set_alias(root, "stable", Alias("tiny", 1))
    set_alias(root, "canary", Alias("tiny.v3", 3, weight=0.25))
    return root


def set_alias(root: Path, name: str, alias: Alias | None) -> None:
    ledger.update(root, lambda known: known.with_alias("tiny", name, alias))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Any, mode: str, repository: Path) -> Iterator[AnyClient]:
    aliases = Aliases(repository, rng=random.Random(5), check_every_s=0)
    with AnyClient(mode, url_of(server, mode), aliases=aliases) as connected:
        yield connected


def met(client: AnyClient, name: str, **options: Any) -> tuple[str, str, str]:
    answer = client.infer(name, ASKED, **options)
    return single_version(answer), answer.model, answer.version


def test_an_alias_is_asked_and_the_answer_says_who_gave_it(client: AnyClient) -> None:
    assert met(client, "tiny@stable") == ("1", "tiny", "1")
    assert met(client, "tiny@canary") == ("3", "tiny.v3", "3")
    assert met(client, "tiny", version=2) == ("2", "tiny", "2")
    assert client.ready("tiny@canary") is True
    assert client.metadata("tiny@canary").name == "tiny.v3"


def test_moving_an_alias_takes_effect_in_a_running_client(client: AnyClient, repository: Path) -> None:
    assert met(client, "tiny@stable")[0] == "1"
    set_alias(repository, "stable", Alias("tiny", 2))
    assert met(client, "tiny@stable")[0] == "2"


def test_a_canary_gets_its_share_and_a_user_one_version(client: AnyClient) -> None:
    share = Counter(met(client, "tiny")[0] for _ in range(80))
    assert set(share) == {"2", "3"}
    assert 8 <= share["3"] <= 32
    for_users = {n: {met(client, "tiny", sticky_key=f"user {n}")[0] for _ in range(3)} for n in range(20)}
    assert {len(versions) for versions in for_users.values()} == {1}
    assert set().union(*for_users.values()) == {"2", "3"}


def test_a_canary_that_is_gone_is_passed_over(client: AnyClient, repository: Path) -> None:
    set_alias(repository, "canary", Alias("tiny.v9", 9, weight=1.0))
    with pytest.warns(CanaryPassedOver, match=r"tiny\.v9"):
        assert met(client, "tiny")[0] == "2"
    with pytest.raises(ModelNotFound, match="tiny@canary is not served"):
        client.infer("tiny@canary", ASKED)


def test_running_clients_follow_an_alias_without_a_failure(server: Any, repository: Path) -> None:
    options = {"aliases": Aliases(repository, check_every_s=0.05)}
    with single_load(server, "tiny@stable", client_options=options) as load:
        assert load.wait_for("1")
        set_alias(repository, "stable", Alias("tiny", 2))
        assert load.wait_for("2")
    report = load.report()
    assert report.failures == {}
    assert report.versions == ("1", "2")


def test_a_shadow_is_compared_behind_the_answers(server: Any, mode: str, repository: Path) -> None:
    set_alias(repository, "canary", Alias("tiny.v3", 3))
    options = {"aliases": repository, "shadow": Shadow("tiny@canary")}
    with AnyClient(mode, url_of(server, mode), **options) as client:
        assert {met(client, "tiny")[0] for _ in range(10)} == {"2"}
        report = client.shadow_report(wait_s=20)
    assert (report.sampled, report.compared, report.failed) == (10, 10, 0)
    assert [(o.name, o.largest, o.mean, o.top1_agreement) for o in report.outputs] == [("y", 1.0, 1.0, None)]
    assert report.candidate_took.p50_ms > 0
    assert not [t for t in threading.enumerate() if t.name.startswith("conch-shadow")]


def test_a_shadow_that_is_not_served_only_counts(server: Any, mode: str) -> None:
    options = {"shadow": Shadow("tiny.v9", of="tiny")}
    with AnyClient(mode, url_of(server, mode), **options) as client:
        assert met(client, "tiny")[0] == "2"
        report = client.shadow_report(wait_s=20)
    assert (report.compared, report.failed) == (0, 1)
    assert "no model tiny.v9" in report.first_failure


class TestCommand:
    @pytest.fixture
    def csv(self, tmp_path: Path) -> Path:
        file = tmp_path / "x.csv"
        file.write_text("x\n" + "1\n" * 20)
        return file

    def run(self, server: Any, *arguments: str) -> Any:
        return CliRunner().invoke(infer, [*arguments, "--url", server.grpc_url])

    def test_an_alias_is_asked(self, server: Any, repository: Path, csv: Path) -> None:
        result = self.run(server, "tiny@canary", "--csv", str(csv), "--repository", str(repository), "--json")
        document = json.loads(result.stdout)
        assert document["model"] == "tiny@canary"
        assert document["answers"] == [{"y": 4.0}] * 20

    def test_a_file_is_asked_of_a_shadow_too(self, server: Any, repository: Path, csv: Path) -> None:
        set_alias(repository, "canary", Alias("tiny.v3", 3))
        arguments = ("tiny", "--csv", str(csv), "--shadow", "tiny@canary", "--repository", str(repository))
        shown = self.run(server, *arguments)
        assert shown.exit_code == 0, shown.output
        assert "tiny@canary beside tiny: 3 of 3 requests compared, 0 failed" in shown.stderr
        assert ["y", "1", "1", "-", "-", "0"] in [line.split() for line in shown.stderr.splitlines()]
        document = json.loads(self.run(server, *arguments, "--json").stdout)
        assert document["answers"] == [{"y": 3.0}] * 20
        assert document["shadow"]["outputs"][0]["largest"] == 1.0

    def test_an_alias_without_a_repository_says_what_to_do(self, server: Any, csv: Path, tmp_path: Path) -> None:
        result = self.run(server, "tiny@stable", "--csv", str(csv), "--repository", str(tmp_path / "none"))
        assert "no such model repository" in str(result.exception)
