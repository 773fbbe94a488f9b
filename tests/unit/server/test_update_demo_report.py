"""What a load reports: which requests met an update, quantiles of each, versions in order, failures by message."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conch.manifest import Manifest
from conch.repository import Repository
from server import tiny_models, update_demo
from server.under_load import Asked, LoadReport, MixedAnswer, Window, WrongAnswer

# Two clients, a request each second that takes 0.1 s; version 2 from second 3 on. Something changes from 3 s to 4.05 s.
ASKED = tuple(
    Asked(client, sent_at_s=float(n), took_s=0.1 + n / 100, version="1" if n < 3 else "2")
    for n in range(6)
    for client in (0, 1)
)
REPORT = LoadReport(ASKED, (Window(3.0, 4.05, "publish"),))
BAD = LoadReport((*ASKED, Asked(0, 9.0, 0.1, failure="lost"), Asked(1, 9.0, 0.1, failure="wrong", mixed=True)))


def test_requests_that_met_an_update_are_told_apart() -> None:
    assert [a.sent_at_s for a in REPORT.during(REPORT.updates[0]).asked] == [3, 3, 4, 4]
    assert [a.sent_at_s for a in REPORT.steady().asked] == [0, 0, 1, 1, 2, 2, 5, 5]


@pytest.mark.parametrize(
    ("quantile", "during", "ms"),
    [(0.5, None, 120), (1.0, None, 150), (0.5, True, 130), (0.99, True, 140), (0.99, False, 150), (0.5, False, 110)],
)
def test_quantiles_are_times_that_were_taken(quantile: float, during: bool | None, ms: float) -> None:
    assert REPORT.quantile_ms(quantile, during_updates=during) == pytest.approx(ms)


def test_without_requests_there_is_no_quantile() -> None:
    assert math.isnan(LoadReport(()).quantile_ms(0.99))


def test_versions_and_turns() -> None:
    assert REPORT.versions == ("1", "2")
    assert REPORT.turns(0) == ("1", "2")
    back = LoadReport((*ASKED, Asked(0, 9.0, 0.1, version="1")))
    assert (back.versions, back.turns(0), back.turns(1)) == (("1", "2"), ("1", "2", "1"), ("1", "2"))
    assert back.counts == {"1": 7, "2": 6}


def test_failures_are_counted_and_have_no_latency() -> None:
    assert (BAD.requests, BAD.failed, BAD.mixed) == (14, 2, 1)
    assert BAD.failures == {"lost": 1, "wrong": 1}
    assert BAD.versions == ("1", "2")
    assert BAD.quantile_ms(1.0) == pytest.approx(150)


class TestTinyModels:
    @pytest.mark.parametrize("k", [0, 7])
    def test_who_answered_is_seen(self, k: int) -> None:
        assert tiny_models.single_version({"y": np.float32([[1 + k]])}) == str(k)
        assert tiny_models.pipeline_version({"trace": np.float32([[k, k, k]])}) == str(k)

    @pytest.mark.parametrize(
        ("check", "answer", "kind"),
        [
            (tiny_models.single_version, {"y": np.float32([[1.5]])}, WrongAnswer),
            (tiny_models.pipeline_version, {"trace": np.float32([[1, 2, 1]])}, MixedAnswer),
            (tiny_models.pipeline_version, {"trace": np.float32([[1.5, 1.5, 1.5]])}, WrongAnswer),
        ],
    )
    def test_a_wrong_answer_is_seen(self, check: Any, answer: Any, kind: type[Exception]) -> None:
        with pytest.raises(kind) as met:
            check(answer)
        assert type(met.value) is kind

    def test_its_manifests_tell_the_answer_that_is_due(self, tmp_path: Path) -> None:
        tiny_models.write_pipeline(tmp_path, "p", 4, broken=0.5)
        tiny_models.record(tmp_path, "p", 4)
        repository = Repository(tmp_path)
        manifests = {name: repository.manifest(name, 1) for name in repository.model_names()}
        assert set(manifests) == {"p", "p_preprocess", "p_model", "p_postprocess"}
        assert all(isinstance(manifest, Manifest) for manifest in manifests.values())
        public = manifests["p"]
        assert public is not None
        assert public.golden[0].outputs["trace"]["data"] == [4.0, 4.0, 4.0]


def test_a_command_is_printed_with_what_it_says_and_when(tmp_path: Path) -> None:
    shown = io.StringIO()
    transcript = update_demo.Transcript(tmp_path, Console(file=shown, width=160))
    assert transcript.conch("repo", "no-such-command") != 0
    lines = shown.getvalue().splitlines()
    assert re.fullmatch(r" +\d+\.\d  \$ conch repo no-such-command", lines[0])
    assert any("No such command" in line for line in lines)
    assert re.fullmatch(r" +\d+\.\d  \(exit code \d\)", lines[-1])
