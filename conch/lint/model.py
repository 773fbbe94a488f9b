"""A repository as the rules look at it: folders, models and versions, each file read once and only when asked for.

Nothing here judges, and nothing here fails: what cannot be read is kept as the reason why.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from conch.errors import ConchError
from conch.lint.onnx_header import OnnxHeader, OnnxHeaderError, read_header
from conch.manifest import MANIFEST_FILE, Manifest
from conch.model_config import CONFIG_FILE, ModelConfig, ModelConfigMessage, parse, selected_versions
from conch.repository import VERSION

# Triton keeps versions in int64_t.
LARGEST_VERSION = 2**63 - 1

# Far above what people write, far below what would stall the linter.
LARGEST_TEXT_BYTES = 16 << 20
_DEEPEST_FOLDER = 32

# tritonserver 2.51 takes a model's backend from its platform, and both from its file where the config has neither.
# Source: https://github.com/triton-inference-server/core/blob/main/src/constants.h and model_config_utils.cc
_BACKEND_OF_PLATFORM = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "ensemble",
}
# In the order in which Triton looks for them.
_BACKEND_OF_FILE = {
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt": "pytorch",
    "model.py": "python",
}
_FILE_OF_BACKEND = {backend: file for file, backend in _BACKEND_OF_FILE.items() if backend != "tensorflow"}
_FILE_OF_BACKEND["vllm"] = "model.json"  # read by name, whatever default_model_filename says


@dataclass(frozen=True)
class Entry:
    """One name in a folder; links are followed to say what it is. ``broken``: a link to nothing."""

    name: str
    path: Path
    is_folder: bool
    is_link: bool = False
    broken: bool = False


def entries_of(folder: Path) -> tuple[Entry, ...]:
    """What lies in a folder, sorted by name. Raises: OSError."""
    with os.scandir(folder) as found:
        entries = [_entry(folder, e) for e in found]
    return tuple(sorted(entries, key=lambda e: e.name))


def _entry(folder: Path, found: os.DirEntry[str]) -> Entry:
    path, is_link = folder / found.name, found.is_symlink()
    try:
        return Entry(found.name, path, found.is_dir(), is_link, broken=is_link and not path.exists())
    except OSError:  # a link that leads to itself
        return Entry(found.name, path, False, is_link, broken=True)


def read_text(path: Path) -> tuple[str | None, str]:
    """A text file's content and "", or None and why it cannot be read. A pipe or device is not read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as handle:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None, "it is no regular file"
            if status.st_size > LARGEST_TEXT_BYTES:
                return None, f"it has {status.st_size} bytes, over {LARGEST_TEXT_BYTES}"
            return handle.read().decode("utf-8"), ""
    except UnicodeDecodeError as error:
        return None, f"it is no UTF-8 text: {error.reason} at byte {error.start}"
    except OSError as error:
        return None, error.strerror or str(error)
    except ValueError as error:  # a name that no file can have
        return None, str(error)


@dataclass(frozen=True)
class VersionFolder:
    """One version: its files, its manifest, its ONNX header."""

    name: str
    path: Path

    @property
    def number(self) -> int:
        """The version's number, of any size."""
        return int(self.name)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file, as a path relative to the version folder with '/' between; links are followed, loops are not."""
        return tuple(sorted(_walk(self.path, "", frozenset(), 0)))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """What lies at the top of the version folder; empty when it cannot be read."""
        try:
            return entries_of(self.path)
        except OSError:
            return ()

    def entry(self, name: str) -> Entry | None:
        """The entry of this name at the top of the version folder."""
        return next((e for e in self.entries if e.name == name), None)

    @cached_property
    def _manifest(self) -> tuple[Manifest | None, str]:
        path = self.path / MANIFEST_FILE
        if not os.path.lexists(path):
            return None, ""
        _, problem = read_text(path)
        if problem:
            return None, problem
        try:
            return Manifest.read(path), ""
        except ConchError as error:
            return None, f"{error.what}: {error.got}"
        except (AttributeError, RecursionError) as error:
            return None, f"it is no manifest: {error}"

    @property
    def manifest(self) -> Manifest | None:
        """The version's manifest; None when it has none or one that cannot be read (see ``manifest_error``)."""
        return self._manifest[0]

    @property
    def manifest_error(self) -> str:
        """Why the manifest cannot be read; "" when it can, or is not there."""
        return self._manifest[1]

    def onnx(self, file: str = "model.onnx") -> OnnxHeader | None:
        """The header of an ONNX file in the version folder; None when it cannot be read (see `onnx_error`)."""
        header, _ = self._onnx(file)
        return header

    def onnx_error(self, file: str = "model.onnx") -> OnnxHeaderError | None:
        """Why an ONNX file cannot be read."""
        _, error = self._onnx(file)
        return error

    @cached_property
    def _headers(self) -> dict[str, tuple[OnnxHeader | None, OnnxHeaderError | None]]:
        return {}

    def onnx_path(self, file: str = "model.onnx") -> Path:
        """Where the ONNX file lies: Triton also takes a folder model.onnx with a model.onnx in it."""
        path = self.path / file
        return path / "model.onnx" if path.is_dir() else path

    def _onnx(self, file: str) -> tuple[OnnxHeader | None, OnnxHeaderError | None]:
        if file not in self._headers:
            try:
                self._headers[file] = (read_header(self.onnx_path(file)), None)
            except OnnxHeaderError as error:
                self._headers[file] = (None, error)
        return self._headers[file]


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]], depth: int) -> Iterator[str]:
    try:
        status = os.stat(folder)
        entries = entries_of(folder)
    except OSError:
        return
    key = (status.st_dev, status.st_ino)
    if key in above or depth > _DEEPEST_FOLDER:
        return
    for entry in entries:
        if entry.is_folder:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {key}, depth + 1)
        else:
            yield prefix + entry.name


class _Listed:
    """A folder whose names are looked at once."""

    path: Path

    @cached_property
    def _listing(self) -> tuple[tuple[Entry, ...], str]:
        try:
            return entries_of(self.path), ""
        except OSError as error:
            return (), error.strerror or str(error)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything in the folder, sorted; empty when it cannot be read."""
        return self._listing[0]

    @property
    def error(self) -> str:
        """Why the folder cannot be read; "" when it can."""
        return self._listing[1]


@dataclass(frozen=True)
class ModelFolder(_Listed):
    """One model: what lies in its folder, its config, its versions.

    ``only`` keeps one version folder and hides the others: what a publish of that version lints.
    """

    name: str
    path: Path
    only: str = ""

    @property
    def config_path(self) -> Path:
        """Where config.pbtxt is, or would be."""
        return self.path / CONFIG_FILE

    @cached_property
    def has_config(self) -> bool:
        """Whether there is an entry named config.pbtxt."""
        return any(e.name == CONFIG_FILE for e in self.entries)

    @cached_property
    def versions(self) -> tuple[VersionFolder, ...]:
        """The folders that Triton takes for versions and that are named as such, lowest first."""
        folders = [VersionFolder(e.name, e.path) for e in self.entries if e.is_folder and VERSION.fullmatch(e.name)]
        kept = [v for v in folders if v.number <= LARGEST_VERSION and (not self.only or v.name == self.only)]
        return tuple(sorted(kept, key=lambda v: v.number))

    @cached_property
    def _text(self) -> tuple[str | None, str]:
        return read_text(self.config_path) if self.has_config else ("", "")

    @property
    def config_text(self) -> str:
        """The text of config.pbtxt; "" when there is none or it cannot be read."""
        return self._text[0] or ""

    @cached_property
    def _config(self) -> tuple[ModelConfigMessage | None, str]:
        text, problem = self._text
        if text is None:
            return None, problem
        try:
            return parse(text, self.config_path), ""
        except ConchError as error:
            return None, str(error.got)
        except (ValueError, RecursionError, ArithmeticError) as error:
            # What protobuf's text parser lets through on garbage: bad escapes, endless nesting.
            return None, str(error) or type(error).__name__

    @property
    def config(self) -> ModelConfigMessage | None:
        """The config; an empty message where there is no config.pbtxt, None where it does not parse."""
        return self._config[0]

    @property
    def config_error(self) -> str:
        """Why config.pbtxt cannot be read or parsed; "" when it can."""
        return self._config[1]

    @cached_property
    def served(self) -> tuple[VersionFolder, ...]:
        """The versions that the version policy selects, lowest first; a broken config selects as the default does."""
        if self.only:
            return self.versions
        wanted = set(selected_versions(self.config or ModelConfig(), [v.number for v in self.versions]))
        return tuple(v for v in self.versions if v.number in wanted)

    @cached_property
    def backend(self) -> str:
        """The backend that runs the model: "onnxruntime", "python", "ensemble" ...; "" when it cannot be known."""
        config = self.config
        if config is None:
            return ""
        if config.platform == "ensemble" or config.HasField("ensemble_scheduling"):
            return "ensemble"
        if config.backend or config.platform:
            return str(config.backend) or _BACKEND_OF_PLATFORM.get(config.platform, "")
        if config.default_model_filename:
            return _BACKEND_OF_FILE.get(config.default_model_filename, "")
        files = {e.name for v in self.versions[:1] for e in v.entries}
        return next((backend for file, backend in _BACKEND_OF_FILE.items() if file in files), "")

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is an ensemble of others."""
        return self.backend == "ensemble"

    @property
    def model_file(self) -> str:
        """The name of the model's file in a version folder; "" when the backend has none that is fixed."""
        named = str(self.config.default_model_filename) if self.config is not None else ""
        return named or _FILE_OF_BACKEND.get(self.backend, "")

    def headers(self) -> Iterator[tuple[VersionFolder, OnnxHeader]]:
        """The ONNX headers of the versions that are served; of none when the backend is not onnxruntime."""
        if self.backend == "onnxruntime":
            for version in self.served:
                header = version.onnx(self.model_file)
                if header is not None:
                    yield version, header


@dataclass(frozen=True)
class RootFolder(_Listed):
    """A repository: the folder that Triton is given, and the models in it.

    ``chosen`` keeps some models (all when empty): the others are there for ensembles to refer to.
    """

    path: Path
    chosen: tuple[str, ...] = ()
    only: str = field(default="")

    @cached_property
    def models(self) -> tuple[ModelFolder, ...]:
        """Every folder in the root that holds a config.pbtxt or a version; R04 is about the others."""
        found = (
            ModelFolder(e.name, e.path, self.only if e.name in self.chosen else "") for e in self.entries if e.is_folder
        )
        return tuple(m for m in found if is_model(m))

    def is_chosen(self, name: str) -> bool:
        """Whether findings of this model are asked for."""
        return not self.chosen or name in self.chosen


def is_model(folder: ModelFolder) -> bool:
    """Whether a folder is meant as a model: it holds a config.pbtxt, or a folder that begins as a number does.

    One that cannot be read counts as a model too: R00 says so.
    """
    return bool(folder.error) or folder.has_config or any(e.is_folder and e.name[:1].isdigit() for e in folder.entries)
