"""`conch serve --verify-key`: what the server would load is verified, and poll control is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conch import signing
from conch.errors import ConchError, RepositoryError, ServerError
from conch.manifest import Manifest, digest_files
from server.signed import verify_all


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private = tmp_path / "key"
    return private, signing.generate(private)


def model(root: Path, name: str, key: Path | None, config: str = 'backend: "python"\n', version: int = 1) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
    (folder / "model.py").write_text("code")
    Manifest(name, "now", {}, digest_files(folder), "").write(folder)
    if key is not None:
        signing.sign(folder, key)
    return folder


def test_what_is_signed_is_served(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    model(tmp_path / "r", "a", keys[0])
    model(tmp_path / "r", "b", keys[0])
    assert verify_all([tmp_path / "r"], keys[1], "none", ()) == 2


def test_an_unsigned_version_is_not(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    model(tmp_path / "r", "a", keys[0])
    model(tmp_path / "r", "b", None)
    with pytest.raises(RepositoryError, match="not signed") as raised:
        verify_all([tmp_path / "r"], keys[1], "none", ())
    assert str(tmp_path / "r" / "b") in str(raised.value)


def test_a_changed_version_is_not(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    (model(tmp_path / "r", "a", keys[0]) / "model.py").write_text("other code")
    with pytest.raises(ConchError, match=r"model\.py"):
        verify_all([tmp_path / "r"], keys[1], "explicit", ("*",))


def test_only_what_is_loaded_counts(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """An older version that the policy leaves out, and a model that nobody asked for, are not loaded."""
    model(tmp_path / "r", "a", None)
    model(tmp_path / "r", "a", keys[0], version=2)
    model(tmp_path / "r", "b", None)
    assert verify_all([tmp_path / "r"], keys[1], "explicit", ("a",)) == 1


def test_the_members_of_an_ensemble_count(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    step = 'platform: "ensemble"\nensemble_scheduling { step { model_name: "member" model_version: -1 } }\n'
    model(tmp_path / "r", "whole", keys[0], step)
    model(tmp_path / "r", "member", None)
    with pytest.raises(RepositoryError, match="not signed"):
        verify_all([tmp_path / "r"], keys[1], "explicit", ("whole",))


def test_poll_control_is_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ServerError, match="cannot be kept in poll control") as raised:
        verify_all([tmp_path], keys[1], "poll", ())
    assert "--control explicit" in str(raised.value)
