"""Apply what findings propose: edits of config.pbtxt, renames, guard files; each as one step, whole or not at all.

What is written is put together outside of the repository, where Triton does not look. In a repository that conch
manages, the model's lock is held meanwhile: a publish of it and a fix exclude each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.errors import ConchError
from conch.lint.check import Report, check
from conch.lint.config_edit import edited
from conch.lint.finding import EditConfig, Finding, GuardFile, Rename
from conch.lint.options import LintOptions
from conch.model_config import CONFIG_FILE, ModelConfig, parse
from conch.repository import Repository

# A mend may make room for the next one (a renamed version is linted for the first time); more rounds mean a circle.
_MOST_ROUNDS = 4


@dataclass(frozen=True)
class Mended:
    """One thing that was done: to which file, and for which findings."""

    file: str
    what: str
    rules: tuple[str, ...]
    comments_kept: bool = True


@dataclass(frozen=True)
class NotMended:
    """A finding whose mend could not be applied, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class FixReport:
    """What was mended and what was not, and what a lint finds afterwards."""

    mended: tuple[Mended, ...]
    not_mended: tuple[NotMended, ...]
    after: Report


def fix(paths: Path | str | Sequence[Path | str], options: LintOptions | None = None) -> FixReport:
    """Lint, apply every mend that a finding carries, and lint again. What is switched off stays as it is.

    Raises: RepositoryError and ConfigError as `check` does.
    """
    mended: list[Mended] = []
    report = check(paths, options)
    for _ in range(_MOST_ROUNDS):
        failed: list[NotMended] = []
        before = len(mended)
        for folder, findings in _by_folder(report.findings).items():
            try:
                with _locked(folder), _workplace(folder) as workplace:
                    mended += _mend(folder, findings, workplace)
            except (OSError, ConchError) as error:
                reason = error.what if isinstance(error, ConchError) else error.strerror or str(error)
                failed += [NotMended(f, reason) for f in findings]
        report = check(paths, options)
        if len(mended) == before or not any(f.mend for f in report.findings):
            break
    return FixReport(tuple(mended), tuple(failed), report)


def _by_folder(findings: Sequence[Finding]) -> dict[Path, list[Finding]]:
    folders: dict[Path, list[Finding]] = {}
    for finding in findings:
        if finding.mend is not None and finding.folder is not None:
            folders.setdefault(finding.folder, []).append(finding)
    return folders


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the model's lock where conch has published into the repository. Raises: Busy."""
    from conch.switching import locks

    staging = Repository(folder.parent).staging
    if not staging.is_dir():
        yield
        return
    with locks.models(staging, [folder.name], "lint --fix"), locks.repository(staging):
        yield


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for unfinished files, beside the repository; gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix=".conch-lint-", dir=folder.absolute().parent.parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _mend(folder: Path, findings: Sequence[Finding], workplace: Path) -> Iterator[Mended]:
    edits = [(f, f.mend) for f in findings if isinstance(f.mend, EditConfig)]
    if edits:
        yield from _edit_config(folder / CONFIG_FILE, edits, workplace)
    for finding in findings:
        if isinstance(finding.mend, Rename):
            _rename(finding.mend)
            yield Mended(finding.file, finding.mend.what, (finding.rule,))
        elif isinstance(finding.mend, GuardFile):
            _guard(finding.mend.path, workplace)
            yield Mended(str(finding.mend.path), finding.mend.what, (finding.rule,))


def _edit_config(path: Path, edits: Sequence[tuple[Finding, EditConfig]], workplace: Path) -> Iterator[Mended]:
    """All edits of one config in one replacement."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    old = parse(text, path)
    new = ModelConfig()
    new.CopyFrom(old)
    for _, mend in edits:
        mend.edit(new)
    if new == old:
        return
    result = edited(text, old, new)
    _replace(path, result.text.encode(), workplace)
    for finding, mend in edits:
        yield Mended(str(path), mend.what, (finding.rule,), result.comments_kept)


def _replace(path: Path, content: bytes, workplace: Path) -> None:
    """Put a file in the place of another by one rename; a link stays, and what it leads to is replaced."""
    target = path.resolve()
    beside = workplace / "new"
    with open(beside, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    if target.exists():
        shutil.copymode(target, beside)
        # Triton takes a file of the same time for unchanged, and file systems keep time in coarse steps.
        now_ns = max(time.time_ns(), target.stat().st_mtime_ns + 1)
        os.utime(beside, ns=(now_ns, now_ns))
    try:
        os.replace(beside, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The repository is a file system of its own: the only place to write is beside the file.
        hidden = target.with_name(f".{target.name}.conch-lint")
        shutil.copy2(beside, hidden)
        os.replace(hidden, target)


def _rename(mend: Rename) -> None:
    if os.path.lexists(mend.target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(mend.target))
    os.rename(mend.source, mend.target)


def _guard(path: Path, workplace: Path) -> None:
    """An empty file; bytecode that lies in a folder of its name goes away."""
    if path.is_dir() and not path.is_symlink():
        if any(p.suffix not in (".pyc", ".pyo") for p in path.iterdir()):
            raise FileExistsError(errno.EEXIST, "the folder holds more than bytecode", str(path))
        shutil.rmtree(path)
    (workplace / "guard").touch()
    try:
        os.replace(workplace / "guard", path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        path.touch()
