"""The benchmark of the linter measures what it says: so many models, looked at by the rules."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from perf.lint_many import main


def test_the_repository_is_as_large_as_asked_and_has_its_faults(tmp_path: Path) -> None:
    arguments = ["--models", "32", "--weight-kib", "1", "--json", "--keep", str(tmp_path)]

    result = CliRunner().invoke(main, arguments, catch_exceptions=False)

    document = json.loads(result.stdout)
    assert document["models"] == 32
    assert document["cpu_seconds"] > 0
    assert document["findings"] >= 2  # pipelines 0 and 10 have a member with smaller batches
    assert {"R01", "R28", "R38"} <= document["by_rule"].keys()
    assert (tmp_path / "repository/pipeline0010_model/1/model.onnx").is_file()
