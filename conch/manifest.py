"""manifest.json: where a version comes from, what it was checked against, and what its files were.

One lies in each version folder. It is written once, when the version is staged, and never changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from conch.errors import RepositoryError
from conch.tensor_spec import Array, data_type, from_numpy_type

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"  # see conch.signing
FORMAT = 1


@dataclass(frozen=True)
class Parity:
    """How one output of the written model compares with the source's, over all samples.

    ``largest_difference`` is absolute, ``cosine`` the lowest over the samples, ``top1_agreement`` the share of samples
    whose largest entry is the same; the last two are None where they mean nothing (strings, single numbers).
    """

    output: str
    samples: int
    largest_difference: float
    tolerance: float
    cosine: float | None = None
    top1_agreement: float | None = None


@dataclass(frozen=True)
class Golden:
    """One small real request and its answer, kept to be asked again after a load.

    Tensors are JSON: ``{"name": {"datatype": "FP32", "shape": [1, 4], "data": [...]}}``, data flat, strings as text.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What is known of one version.

    ``source`` says what was exported and with which frameworks; ``files`` maps paths in the version folder to SHA-256
    digests; ``config`` is the config.pbtxt that the version was made for; ``packages`` are the pip requirements of its
    Python code; ``opset`` and ``ir_version`` are those of its ONNX file, where it has one.
    """

    model: str
    created_at: str
    source: Mapping[str, Any]
    files: Mapping[str, str]
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parity: tuple[Parity, ...] = ()
    golden: tuple[Golden, ...] = ()
    packages: tuple[str, ...] = ()
    opset: int | None = None
    ir_version: int | None = None
    format: int = FORMAT

    def write(self, version_folder: Path) -> Path:
        """Write manifest.json into a version folder; returns its path."""
        path = version_folder / MANIFEST_FILE
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.json. Raises: RepositoryError when it is no manifest, or of a newer format."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise RepositoryError(
                    "the manifest is of a format that this conch does not know",
                    where=path,
                    got=document["format"],
                    expected=FORMAT,
                    fix="use the conch that wrote it, or a newer one",
                )
            parity = tuple(Parity(**row) for row in document.pop("parity"))
            golden = tuple(Golden(**row) for row in document.pop("golden"))
            packages = tuple(document.pop("packages"))
            return cls(**document, parity=parity, golden=golden, packages=packages)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RepositoryError("manifest.json cannot be read", where=path, got=error) from error


def digest_files(version_folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a version folder but its manifest and that one's signature, by path in the folder."""
    own = {version_folder / MANIFEST_FILE, version_folder / SIGNATURE_FILE}
    paths = sorted(p for p in version_folder.rglob("*") if p.is_file() and p not in own)
    return {p.relative_to(version_folder).as_posix(): sha256(p) for p in paths}


@dataclass(frozen=True)
class FileChanges:
    """How a version folder's files differ from what its manifest says: paths in the folder."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added)

    def __str__(self) -> str:
        parts = (("changed", self.changed), ("missing", self.missing), ("added", self.added))
        return "; ".join(f"{what}: {', '.join(paths)}" for what, paths in parts if paths) or "nothing"


def changed_files(version_folder: Path, manifest: Manifest) -> FileChanges:
    """What was done to a version's files since its manifest was written; every file is read."""
    now, then = digest_files(version_folder), manifest.files
    return FileChanges(
        changed=tuple(sorted(p for p in now.keys() & then.keys() if now[p] != then[p])),
        missing=tuple(sorted(then.keys() - now.keys())),
        added=tuple(sorted(now.keys() - then.keys())),
    )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tensor_to_json(array: Array) -> dict[str, Any]:
    """An array as a JSON object with its data flat; strings as text. The inverse of `tensor_from_json`."""
    datatype = from_numpy_type(array.dtype).wire
    flat = array.ravel().tolist()
    if datatype == "BYTES":
        flat = [x.decode("utf-8") if isinstance(x, bytes) else str(x) for x in flat]
    return {"datatype": datatype, "shape": list(array.shape), "data": flat}


def tensor_from_json(tensor: Mapping[str, Any]) -> Array:
    """The array that `tensor_to_json` was given; text comes back as ``str`` objects."""
    dtype = data_type(tensor["datatype"]).numpy
    return np.array(tensor["data"], dtype=dtype).reshape(tensor["shape"])
