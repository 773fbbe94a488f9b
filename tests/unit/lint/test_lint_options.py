from pathlib import Path

import pytest

from conch.errors import ConfigError
from conch.lint import LintOptions, check, off
from conch.lint.options import Off, merged, read_options
from conch.lint.rules import all_rules, rule, rule_named
from tests.fakes.lint_repositories import ONNX_CONFIG, findings, found, onnx_model, write

R06 = {".config.pbtxt.swp": "x"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(onnx_model(tmp_path / "models"), R06)
    write(onnx_model(tmp_path / "models", "n"), R06)
    return tmp_path / "models"


def with_comment(root: Path, comment: str) -> Path:
    return onnx_model(root, config=f"{comment}\n{ONNX_CONFIG}")


def test_an_entry_of_the_options_silences_a_rule_and_keeps_the_reason(root: Path) -> None:
    report = check(root, LintOptions(off=(off("R06", "an editor of ours"),)))
    assert report.findings == ()
    assert [(s.finding.model, s.finding.rule, s.off.reason) for s in report.silenced] == [
        ("m", "R06", "an editor of ours"),
        ("n", "R06", "an editor of ours"),
    ]


@pytest.mark.parametrize("place", [".", ".."])
def test_the_file_in_the_root_or_beside_it_is_read(root: Path, place: str) -> None:
    write(root / place, {"conch-lint.yaml": "switch-off:\n- {rule: r06, models: ['m*'], reason: ours}\n"})
    assert [f.model for f in findings(root)] == ["n"]
    assert found(root, find_file=False) == ["R06", "R06"]


def test_a_comment_silences_a_rule_for_its_model(root: Path) -> None:
    with_comment(root, "# conch-lint: off R06 because vim is open")
    report = check(root)
    assert [f.model for f in report.findings] == ["n"]
    (silenced,) = report.silenced
    assert silenced.off == Off("R06", "vim is open", ("m",), f"{root / 'm/config.pbtxt'}, line 1")


def test_several_rules_in_one_comment(root: Path) -> None:
    with_comment(root, "# conch-lint: off R06, R05 because: so it is")
    assert [f.model for f in findings(root)] == ["n"]


@pytest.mark.parametrize(
    ("comment", "what", "fix"),
    [
        ("# conch-lint: off RO6 because x", "there is no rule RO6", "did you mean R06?"),
        ("# conch-lint: off R6 because x", "there is no rule R6", "did you mean R06?"),
        ("# conch-lint: off R06", "R06 is switched off without a reason", None),
        ("# conch-lint: off R06 because  ", "R06 is switched off without a reason", None),
        ("# conch-lint: disable R06", "a comment for the linter is not understood", None),
    ],
)
def test_a_comment_that_is_wrong_is_a_finding_and_silences_nothing(
    root: Path, comment: str, what: str, fix: str | None
) -> None:
    with_comment(root, comment)
    wrong, kept = (f for f in findings(root) if f.model == "m")
    assert (wrong.rule, wrong.message, wrong.place, kept.rule) == ("R00", what, "line 1", "R06")
    assert fix is None or wrong.fix == fix


def test_a_mark_in_a_string_is_no_comment(root: Path) -> None:
    text = 'parameters { key: "# conch-lint: off R06 because x" value { string_value: "1" } }'
    onnx_model(root, config=ONNX_CONFIG + text)
    assert found(root) == ["R06", "R06"]


def test_the_file_sets_the_target_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "conch-lint.yaml"
    path.write_text('target: "24.08"\ncpus: 4\ngpu: false\nlatency-budget-ms: 5.5\nshm-bytes: 64\n')
    read = read_options(path)
    assert read == LintOptions(target="24.08", cpus=4, gpu=False, latency_budget_ms=5.5, shm_bytes=64)
    both = merged(LintOptions(target="24.10", gpu=True), read)
    assert (both.target, both.cpus, both.gpu) == ("24.10", 4, True)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("switchoff: []", "no key switchoff", "did you mean switch-off?"),
        ("switch-off: [{rule: R99, reason: x}]", "there is no rule R99", None),
        ("switch-off: [{rule: R06}]", "without a reason", None),
        ("switch-off: [{rule: R06, reason: ''}]", "without a reason", None),
        ("switch-off: [{rule: R06, reasn: x}]", "no key reasn", "did you mean reason?"),
        ("switch-off: R06", "switch-off has the wrong type", None),
        ("switch-off: [R06]", "no mapping", None),
        ("target: 24.10", "target has the wrong type", None),
        ("cpus: true", "cpus has the wrong type", None),
        ("- R06", "no mapping", None),
        ("a: [", "no YAML", None),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, what: str, fix: str | None, tmp_path: Path) -> None:
    (tmp_path / "conch-lint.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        check(tmp_path)
    assert fix is None or caught.value.fix == fix


def test_a_target_that_is_not_known_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"24\.99"):
        check(root, LintOptions(target="24.99"))


def test_every_rule_has_a_number_a_title_and_words() -> None:
    rules = all_rules()
    assert [r.id for r in rules] == [f"R{n:02}" for n in range(39)]
    assert all(r.title and len(r.doc.splitlines()) > 1 for r in rules)


def test_rules_are_found_in_either_case() -> None:
    assert rule_named("r10").id == "R10"


def test_a_rule_cannot_be_entered_twice() -> None:
    with pytest.raises(ValueError, match="R10"):
        rule("R10", "error", "again")(lambda model, context: iter(()))
