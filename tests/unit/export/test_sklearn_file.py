"""Loading a pickle: whose file it is, that its code runs, and what is said when it does not load."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LinearRegression

from conch.errors import ExportError, UntrustedSource
from export import from_sklearn
from export.from_sklearn_file import load_estimator
from export.options import ExportOptions


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A linear regression on two columns, x0 and x1."""
    rows = pd.DataFrame({"x0": [0.0, 1.0, 2.0], "x1": [1.0, 0.0, 5.0]})
    path = tmp_path / "model.joblib"
    joblib.dump(LinearRegression().fit(rows, [1.0, 2.0, 9.0]), path)
    path.chmod(0o644)
    return path


class Runs:
    """An object that shows whether its pickle was loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class OldVersion:
    """A regressor whose pickle warns as scikit-learn does about another version."""

    def predict(self, rows: Any) -> Any:
        return rows

    def __setstate__(self, state: Any) -> None:
        for name in ("LinearRegression", "Pipeline"):
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=name, current_sklearn_version="1.9.1", original_sklearn_version="1.4.0"
                ),
                stacklevel=1,
            )


def test_a_file_of_ones_own_loads_and_it_is_said_that_code_runs(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(load_estimator(model_file, trust=False).estimator, LinearRegression)
    assert "runs the code" in capsys.readouterr().err


def test_a_file_that_everybody_can_write_to_needs_trust_and_is_not_run_before(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    path.chmod(0o666)
    with pytest.raises(UntrustedSource, match="--trust") as raised:
        load_estimator(path, trust=False)
    assert "everybody can write" in str(raised.value)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ExportError, match="not a fitted model"):
        load_estimator(path, trust=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_of_somebody_else_needs_trust(model_file: Path) -> None:
    os.chown(model_file, 65534, -1)
    with pytest.raises(UntrustedSource, match="owned by"):
        load_estimator(model_file, trust=False)
    assert load_estimator(model_file, trust=True).notes == ()


@pytest.mark.parametrize("compress", [0, 3], ids=["plain", "compressed"])
def test_compressed_files_load_too(model_file: Path, compress: int) -> None:
    joblib.dump(joblib.load(model_file), model_file, compress=compress)
    assert load_estimator(model_file, trust=True).estimator.coef_.shape == (2,)


def test_another_version_of_scikit_learn_is_one_note(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    old = OldVersion()
    old.kept = 1  # type: ignore[attr-defined]
    path.write_bytes(pickle.dumps(old))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = load_estimator(path, trust=True).notes
    assert notes == (
        "the model was saved with scikit-learn 1.4.0 and loaded with 1.9.1; parity is with what 1.9.1 answers",
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"not a pickle at all", b"\x80\x04\x95", pickle.dumps(np.zeros(3))[:-20]],
    ids=["empty", "text", "cut after its head", "cut before its end"],
)
def test_what_is_no_pickle_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="no joblib or pickle file"):
        load_estimator(path, trust=True)


@pytest.mark.parametrize("content", [{"model": 1}, [1, 2], "text"], ids=["dict", "list", "text"])
def test_a_pickle_of_something_else_is_refused_by_its_type(content: Any, tmp_path: Path) -> None:
    joblib.dump(content, tmp_path / "model.joblib")
    with pytest.raises(ExportError, match=f"holds a {type(content).__name__}"):
        load_estimator(tmp_path / "model.joblib", trust=True)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        load_estimator(tmp_path / "none.joblib", trust=True)


@pytest.mark.parametrize(("module", "fix"), [("xgboost_absent", "install"), ("xgboost", "onnxmltools")])
def test_a_missing_module_is_named_with_what_to_do(module: str, fix: str, tmp_path: Path) -> None:
    if module in sys.modules:
        pytest.skip(f"{module} is installed here")
    fake = types.ModuleType(module)
    fake.Model = type("Model", (), {"__module__": module})  # type: ignore[attr-defined]
    sys.modules[module] = fake
    try:
        content = pickle.dumps(fake.Model())
    finally:
        del sys.modules[module]
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(ExportError, match=f"Python module {module}") as raised:
        load_estimator(tmp_path / "model.pkl", trust=True)
    assert fix in str(raised.value)


def test_code_that_was_in_a_script_is_missed_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    script = f"import pickle\nclass Mine: pass\nopen({str(path)!r}, 'wb').write(pickle.dumps(Mine()))\n"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    with pytest.raises(ExportError, match="code that is not here") as raised:
        load_estimator(path, trust=True)
    assert "Mine" in str(raised.value)


def test_a_file_and_a_sample_become_a_source_that_says_where_it_is_from(model_file: Path, tmp_path: Path) -> None:
    sample = tmp_path / "rows.csv"
    sample.write_text("x1,x0\n1,0\n0,1\n")
    more = tmp_path / "more.csv"
    more.write_text("x0,x1\n7,8\n")
    source = from_sklearn.load(model_file, sample, ExportOptions(name="m", samples=more))
    assert [spec.name for spec in source.signature.inputs] == ["x0", "x1"]
    assert source.samples[0]["x0"].ravel().tolist() == [0.0, 1.0, 7.0]
    assert source.provenance["kind"] == "sklearn"
    assert source.provenance["path"] == str(model_file)
    assert len(source.provenance["sha256"]) == 64
    assert set(source.provenance["versions"]) == {"scikit-learn", "skl2onnx", "onnx"}
