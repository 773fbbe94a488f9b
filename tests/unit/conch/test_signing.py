import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conch import signing
from conch.errors import RepositoryError
from conch.manifest import Manifest, digest_files
from conch.repository import Repository
from tests.fakes.written_versions import add_versions


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "models.key"
    signing.generate(path)
    return path


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("models.key.pub")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    root = tmp_path / "model_repository"
    add_versions(root, files={"model.py": "pass\n", "labels.txt": "a\nb\n"})
    return Repository(root).version_path("spam", 1)


def test_what_is_signed_is_verified(version: Path, key: Path, public: Path) -> None:
    assert signing.sign(version, key) == version / "manifest.sig"
    signing.verify(version, public)
    assert sorted(p.name for p in version.iterdir()) == ["labels.txt", "manifest.json", "manifest.sig", "model.py"]
    assert [p.name for p in version.parent.parent.iterdir()] == ["spam"]


def test_signing_again_is_harmless(version: Path, key: Path, public: Path) -> None:
    signing.sign(version, key)
    signing.sign(version, key)
    signing.verify(version, public)


def _write(version: Path, name: str, text: str) -> None:
    (version / name).parent.mkdir(exist_ok=True)
    (version / name).write_text(text)


def _forge(version: Path) -> None:
    """Change a file, and the manifest with it."""
    (version / "model.py").write_text("raise SystemExit\n")
    manifest = Manifest.read(version / "manifest.json")
    path = version / "manifest.json"
    path.write_text(path.read_text().replace(manifest.files["model.py"], digest_files(version)["model.py"]))


def _link_folder(version: Path) -> None:
    elsewhere = version.parents[2] / "elsewhere"
    elsewhere.mkdir()
    (version / "package").symlink_to(elsewhere)


def _link_file(version: Path) -> None:
    (version / "labels.txt").rename(version.parents[2] / "labels.txt")
    (version / "labels.txt").symlink_to(version.parents[2] / "labels.txt")


TAMPERING = {
    "a changed file": (lambda v: _write(v, "model.py", "raise SystemExit\n"), "changed: model.py"),
    "a new file": (lambda v: _write(v, "extra.py", ""), "added: extra.py"),
    "bytecode": (lambda v: _write(v, "__pycache__/model.pyc", ""), "added: __pycache__/model.pyc"),
    "a missing file": (lambda v: (v / "labels.txt").unlink(), "missing: labels.txt"),
    "a forged manifest": (_forge, "not of this manifest by this key"),
    "no manifest": (lambda v: (v / "manifest.json").unlink(), "has no manifest"),
    "no signature": (lambda v: (v / "manifest.sig").unlink(), "is not signed"),
    "half a signature": (lambda v: (v / "manifest.sig").write_bytes(b"x" * 32), "not of this manifest by this key"),
    "a folder behind a link": (_link_folder, "links in it"),
    "a file behind a link": (_link_file, "links in it"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_what_was_changed_after_signing_is_refused(version: Path, key: Path, public: Path, name: str) -> None:
    tamper, message = TAMPERING[name]
    signing.sign(version, key)
    tamper(version)
    with pytest.raises(RepositoryError) as caught:
        signing.verify(version, public)
    assert message in str(caught.value)


def test_anothers_key_does_not_verify(version: Path, key: Path, tmp_path: Path) -> None:
    signing.sign(version, key)
    other = signing.generate(tmp_path / "other")
    with pytest.raises(RepositoryError, match="not of this manifest by this key"):
        signing.verify(version, other)


def test_a_signature_of_another_version_does_not_fit(version: Path, key: Path, public: Path) -> None:
    signing.sign(version, key)
    root = version.parents[1]
    add_versions(root, files={"model.py": "raise SystemExit\n"})
    other = Repository(root).version_path("spam", 2)
    shutil.copy(version / "manifest.sig", other)
    with pytest.raises(RepositoryError, match="not of this manifest by this key"):
        signing.verify(other, public)


def test_what_differs_from_its_manifest_is_not_signed(version: Path, key: Path) -> None:
    (version / "model.py").write_text("raise SystemExit\n")
    with pytest.raises(RepositoryError, match=r"changed: model\.py"):
        signing.sign(version, key)
    assert not (version / "manifest.sig").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_verifies_the_same(version: Path, key: Path, public: Path) -> None:
    signing.sign(version, key)
    words = f"openssl pkeyutl -verify -pubin -inkey {public} -rawin -in manifest.json -sigfile manifest.sig"
    done = subprocess.run(words.split(), cwd=version, capture_output=True, text=True, timeout=30, check=False)
    assert "Verified Successfully" in done.stdout


def test_the_private_key_is_its_owners_alone(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600


def test_keys_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RepositoryError, match="keys are never replaced"):
        signing.generate(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "mine"


def _other_kind(tmp_path: Path) -> Path:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    path = tmp_path / "x25519"
    path.write_bytes(X25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    return path


def _with_passphrase(tmp_path: Path) -> Path:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = tmp_path / "locked"
    secret = s.BestAvailableEncryption(b"word")
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, secret))
    return path


def _nonsense(tmp_path: Path) -> Path:
    path = tmp_path / "nonsense"
    path.write_bytes(b"\xff\x00")
    return path


@pytest.mark.parametrize("make", [_other_kind, _with_passphrase, _nonsense, lambda p: p / "missing"])
def test_what_is_no_key_is_said_to_be_none(version: Path, tmp_path: Path, make: object) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(RepositoryError, match="private key"):
        signing.sign(version, path)
    with pytest.raises(RepositoryError, match="public key"):
        signing.verify(version, path)


def test_without_the_package_the_error_names_it(version: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)  # as Python marks a module that is not there
    with pytest.raises(RepositoryError, match=r"pip install 'conch\[signing\]'"):
        signing.sign(version, key)
