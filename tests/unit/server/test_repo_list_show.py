import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conch import ledger
from conch.ledger import Alias, Held, Ledger, Served
from server.http_api import ModelState
from server.repo_view import details, listing, wording
from server.repo_view.cli import list_models, show
from server.repo_view.contents import look
from server.repo_view.live_states import LiveStates
from tests.fakes.written_versions import add_pipeline, add_side_model, add_versions

LEDGER = Ledger(
    {"spam": {"stable": Alias("spam", 2)}, "digits": {"canary": Alias("digits.v2", 2, 0.1)}},
    {"spam": (Served(1, "2026-01-02T03:04:05+00:00", "export"), Served(2, "2026-01-03T03:04:05+00:00", "publish"))},
    {"spam": Held(2, "version_policy { latest { num_versions: 2 } }")},
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "model_repository"
    add_versions(root, ["spam"], count=2)
    add_pipeline(root, "digits")
    add_side_model(root, "digits", 2)
    ledger.update(root, lambda _: LEDGER)
    return root


def run(command: Any, root: Path, *words: str) -> tuple[str, str]:
    result = CliRunner().invoke(command, [*words, "--repository", str(root)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_list_has_a_line_a_model_with_its_parts_and_names_below(root: Path) -> None:
    out, err = run(list_models, root)
    rows = lines(err)
    assert out == ""
    assert rows[0] == ["Model", "Kind", "Versions", "Serves", "Size", "Source", "Created"]
    assert [row[0] for row in rows[1:8]] == [
        *("digits", "@canary", "digits_preprocess", "digits_model", "digits.v2", "spam", "@stable")
    ]
    assert rows[2] == ["@canary", "alias", "2", "gets", "10%"]
    assert rows[6][1:5] == ["model", "1-2", "2", "held"]
    assert rows[6][-2:] == ["sklearn", "2026-01-02"]
    assert "no server is known" in err


def test_the_list_fits_a_terminal(root: Path) -> None:
    assert max(len(line) for line in run(list_models, root)[1].splitlines()) <= 100


def test_the_list_can_be_of_one_model_with_its_parts(root: Path) -> None:
    document = json.loads(run(list_models, root, "digits", "--json")[0])
    assert [m["name"] for m in document["models"]] == ["digits", "digits_preprocess", "digits_model", "digits.v2"]


def test_the_list_for_programs_tells_all(root: Path) -> None:
    out, err = run(list_models, root, "--json")
    assert err == ""
    document = json.loads(out)
    spam = next(m for m in document["models"] if m["name"] == "spam")
    assert spam["serves"] == spam["serves_by_files"] == 2
    assert spam["held"] == {"version": 2, "policy": "version_policy { latest { num_versions: 2 } }"}
    assert spam["aliases"] == {"stable": {"model": "spam", "version": 2, "weight": 0.0}}
    assert [(v["version"], v["loads"]) for v in spam["versions"]] == [(1, False), (2, True)]
    assert document["server"] is None


def test_the_servers_states_are_shown_with_their_reasons(root: Path) -> None:
    states = (ModelState("spam", "1", "READY", ""), ModelState("spam", "2", "UNAVAILABLE", "no memory"))
    view = look(root, LiveStates("http://x", states))
    rows = {row[0]: row for m in view.models.values() for row in listing.rows(view, 0, m)}
    state = listing.columns(view).index("State")
    assert (rows["spam"][3], rows["spam"][state]) == ("1 held", "UNAVAILABLE")
    assert rows["  @stable"][state] == "UNAVAILABLE"
    assert rows["digits"][state] == "not loaded"
    assert "spam 2 should serve and does not: no memory" in list(listing.remarks(view))


def test_what_is_wrong_is_said_below_the_list(root: Path) -> None:
    (root / "spam" / "config.pbtxt").write_text("version_policy { specific { versions: 9 } }")
    (root / "digits" / "1" / "manifest.json").write_text("{")
    (root / "empty").mkdir()
    (root / "empty" / "config.pbtxt").touch()
    err = run(list_models, root)[1]
    assert "spam: its version policy selects none of its versions" in err
    assert "digits 1: manifest.json cannot be read" in err
    assert "empty: it has no version" in err


def test_an_alias_that_leads_nowhere_is_said(root: Path) -> None:
    assert list(listing.stranded(look(root))) == []
    ledger.update(root, lambda now: now.with_alias("spam", "stable", None))  # a name would keep its version loaded
    add_versions(root, ["spam"], count=2)  # its policy loads the newest two
    ledger.update(root, lambda now: now.with_alias("spam", "stable", Alias("spam", 2)))
    ledger.update(root, lambda now: now.with_alias("digits", "gone", Alias("digits.v9", 9)))
    assert [s.partition(",")[0] for s in listing.stranded(look(root))] == [
        "digits@gone leads to version 9",
        "spam@stable leads to version 2",
    ]
    assert [s.partition(",")[0] for s in listing.stranded(look(root), ["spam"])] == ["spam@stable leads to version 2"]
    ready = LiveStates("http://x", (ModelState("spam", "2", "READY", ""),))
    assert list(listing.stranded(look(root, ready), ["spam"])) == []


def test_the_size_of_a_pipelines_version_is_of_all_its_parts(root: Path) -> None:
    view = look(root)
    model = view.model("digits")
    row = details.version_row(view, model, model.versions[0])
    assert row[2] == wording.size(sum(m.versions[0].size_bytes for m in view.parts("digits")))
    assert row[2] != wording.size(model.versions[0].size_bytes)


def test_an_empty_repository_is_said_to_be(tmp_path: Path) -> None:
    assert "holds no model" in run(list_models, tmp_path)[1]


def test_ensembles_that_use_each_other_are_listed(root: Path) -> None:
    step = 'ensemble_scheduling { step { model_name: "NAME" model_version: -1 } }'
    add_versions(root, ["a"], config=step.replace("NAME", "b"))
    add_versions(root, ["b"], config=step.replace("NAME", "a"))
    assert {"a", "b"} <= {m.name for _, m in listing.in_order(look(root))}
    assert [m.name for _, m in listing.in_order(look(root), ["a"])] == ["a", "b"]


def test_show_tells_all_that_is_known(root: Path) -> None:
    out, err = run(show, root, "spam")
    assert out == ""
    words = " ".join(err.split())
    expected = [
        "spam: model, serves version 2 (by the files)",
        "Inputs x FP32 [batch, 1]",
        "Held at version 2 until the next publish or promote; before: version_policy { latest { num_versions: 2 } }",
        "@stable version 2",
        "1e-07 (of 0.0001)",
        "2026-01-03 03:04 2 publish",
        "Source sklearn: estimator LinearRegression",
        "Frameworks scikit-learn 1.9.1",
        "Settings precision fp32",
        "Files model.py",
        "y 0.25",
        "scores [1, 2]: 0.25, 0.75",
        'name: "spam"',
    ]
    assert [text for text in expected if text not in words] == []


def test_show_tells_what_belongs_together(root: Path) -> None:
    words = " ".join(run(show, root, "digits")[1].split())
    assert "Members digits_preprocess, digits_model" in words
    assert "@canary version 2, served as digits.v2, 10% of the traffic" in words
    assert "Used by digits, digits.v2" in " ".join(run(show, root, "digits_model")[1].split())
    assert "Beside digits" in " ".join(run(show, root, "digits.v2")[1].split())


def test_show_of_a_version_is_of_that_one(root: Path) -> None:
    document = json.loads(run(show, root, "spam", "--version", "1", "--json")[0])
    assert document["version"] == 1
    assert document["manifest"]["model"] == "spam"
    assert document["manifest"]["golden"][0]["outputs"]["label"]["data"] == ["low"]
    assert [s["version"] for s in document["history"]] == [1, 2]
    assert 'backend: "python"' in document["config"]


def test_show_survives_what_is_broken_or_missing(root: Path) -> None:
    add_versions(root, ["hand"], by_hand=True)
    (root / "spam" / "config.pbtxt").write_text("nonsense {")
    assert "made by hand" in run(show, root, "hand")[1]
    assert "config.pbtxt does not parse" in run(show, root, "spam")[1]
    (root / "hand" / "config.pbtxt").write_text('input { name: "x" dims: 1 }')
    assert "Problem" in run(show, root, "hand")[1]


def test_a_pinned_or_missing_step_is_said(root: Path) -> None:
    steps = 'step { model_name: "spam" model_version: 1 } step { model_name: "gone" model_version: -1 }'
    add_versions(root, ["both"], config=f"ensemble_scheduling {{ {steps} }}")
    view = look(root)
    members = next(f.text for f in details.facts(view, view.model("both")) if f.name == "Members")
    assert members == "spam (pinned to 1), gone (missing)"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_499, "999.5 kB"), (999_600, "1.0 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert wording.size(count) == text


@pytest.mark.parametrize(
    ("versions", "text"), [([], "-"), ([3], "3"), ([1, 2], "1-2"), ([7, 1, 3, 2, 9, 10], "1-3, 7, 9-10")]
)
def test_runs_of_versions_are_drawn_together(versions: list[int], text: str) -> None:
    assert wording.ranges(versions) == text
