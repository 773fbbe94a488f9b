"""Signatures of versions: who holds the private key vouches for every file of a version.

`manifest.sig` in a version folder is the Ed25519 signature of the bytes of `manifest.json`, 64 bytes, which holds the
digests of all other files. Without conch it is checked so:

    openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in manifest.json -sigfile manifest.sig

It says nothing of config.pbtxt, which all versions of a model share; the manifest has the config that the version was
made for. Keys are PEM files: PKCS 8, and the public one as SubjectPublicKeyInfo.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conch.errors import RepositoryError
from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, changed_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def generate(private_path: Path) -> Path:
    """Write a new private key (mode 600) and, beside it with the ending .pub, its public one; returns that one's path.

    Raises: RepositoryError; files that are there are never replaced.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public_path = private_path.with_name(private_path.name + ".pub")
    _write_new(public_path, key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo), 0o644)
    try:
        _write_new(private_path, key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()), 0o600)
    except RepositoryError:
        public_path.unlink()
        raise
    return public_path


def sign(version_folder: Path, key_path: Path) -> Path:
    """Sign a version with a private key; returns the signature's path. An older signature is replaced.

    Raises: RepositoryError when the key does not serve, or the files are not those of the manifest.
    """
    key = _private_key(key_path)
    check_files(version_folder)
    path = version_folder / SIGNATURE_FILE
    # Beside the model and not in it: whoever reads the version meanwhile sees the old signature or the new one.
    beside = version_folder.parent.parent / f".{version_folder.parent.name}.{version_folder.name}.sig"
    try:
        beside.write_bytes(key.sign((version_folder / MANIFEST_FILE).read_bytes()))
        os.replace(beside, path)
    except OSError as error:
        raise RepositoryError("the signature cannot be written", where=error.filename, got=error.strerror) from error
    return path


def verify(version_folder: Path, public_key_path: Path) -> None:
    """Return when the version is signed with the key's private one, and its files are those that were signed.

    Raises: RepositoryError.
    """
    from_key = read_public_key(public_key_path)
    from cryptography.exceptions import InvalidSignature

    try:
        signature = (version_folder / SIGNATURE_FILE).read_bytes()
        signed = (version_folder / MANIFEST_FILE).read_bytes()
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise RepositoryError(
            "the version is not signed" if missing == SIGNATURE_FILE else "the version has no manifest",
            where=version_folder,
            expected=f"{missing} in the version folder",
            fix="sign it with `conch repo sign`, if you trust it",
        ) from error
    try:
        from_key.verify(signature, signed)
    except InvalidSignature as error:
        raise RepositoryError(
            "the signature is not of this manifest by this key",
            where=version_folder / SIGNATURE_FILE,
            expected=f"a signature that {public_key_path} verifies",
            fix="use the public key of who signed it; if it is that, the version was changed: do not load it",
        ) from error
    check_files(version_folder)


def check_files(version_folder: Path) -> Manifest:
    """A version's manifest, when the files are those that it names, and none is a link. Raises: RepositoryError."""
    path = version_folder / MANIFEST_FILE
    if not path.is_file():
        raise RepositoryError(
            "the version has no manifest, so nobody knows its files",
            where=version_folder,
            fix="publish it with `conch repo publish`: that writes one",
        )
    manifest = Manifest.read(path)
    # What a link leads to can change at any time, and a folder behind one has no digests.
    links = sorted(p.relative_to(version_folder).as_posix() for p in version_folder.rglob("*") if p.is_symlink())
    if links:
        raise RepositoryError(
            "a version with links in it cannot be checked", where=version_folder, got=", ".join(links), expected="files"
        )
    changed = changed_files(version_folder, manifest)
    if changed:
        raise RepositoryError(
            "the version's files are not those of its manifest",
            where=version_folder,
            got=changed,
            expected="versions never change once they are written",
            fix="publish what is there now as a new version, or put the files back",
        )
    return manifest


def _private_key(path: Path) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = _load(path, lambda text: load_pem_private_key(text, password=None), "private")
    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong_key(path, type(key).__name__, "private")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The key in a file that `generate` wrote. Raises: RepositoryError."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _load(path, load_pem_public_key, "public")
    if not isinstance(key, Ed25519PublicKey):
        raise _wrong_key(path, type(key).__name__, "public")
    return key


def _load(path: Path, parse: Any, kind: str) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise RepositoryError(f"the {kind} key cannot be read", where=path, got=error.strerror) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: a key with a passphrase
        raise _wrong_key(path, str(error), kind) from error


def _wrong_key(path: Path, got: str, kind: str) -> RepositoryError:
    return RepositoryError(
        f"that is no {kind} key to sign versions with" if kind == "private" else f"that is no {kind} key of a signer",
        where=path,
        got=got,
        expected=f"an Ed25519 {kind} key as PEM, without a passphrase",
        fix="make a pair with `conch repo keygen`; KEY signs, KEY.pub verifies",
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        fix = "choose another name: keys are never replaced" if isinstance(error, FileExistsError) else None
        raise RepositoryError("the key cannot be written", where=path, got=error.strerror, fix=fix) from error
    with open(descriptor, "wb") as handle:
        handle.write(content)


def _need_cryptography() -> None:
    """Raises: RepositoryError where the package is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise RepositoryError(
            "signing needs the package cryptography", got=error, fix="pip install 'conch[signing]'"
        ) from error
