"""Ask every rule of every model, and put together what they found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conch.errors import RepositoryError
from conch.lint.context import Context
from conch.lint.finding import Fault, Finding, Severity
from conch.lint.model import ModelFolder, RootFolder, is_model
from conch.lint.options import LintOptions, Off, find_options_file, merged, read_options
from conch.lint.rules import Rule, all_rules
from conch.lint.switched_off import offs_of
from conch.releases import DEFAULT_TARGET, release
from conch.repository import VERSION


@dataclass(frozen=True)
class Silenced:
    """A finding that somebody switched off, and why."""

    finding: Finding
    off: Off


@dataclass(frozen=True)
class Report:
    """All findings, by model and rule; what was looked at, and how long it took."""

    findings: tuple[Finding, ...]
    silenced: tuple[Silenced, ...]
    target: str
    models: int
    versions: int
    seconds: float

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which Triton refuses a model, or answers wrongly."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that cost speed or will surprise somebody."""
        return self.of("warning")


def check(paths: Path | str | Sequence[Path | str], options: LintOptions | None = None) -> Report:
    """Lint repositories: every finding of every model. Reads files only; changes nothing.

    Each path is a repository's root, one model's folder in it, or one version's folder in that; for the latter two the
    other models are there to be referred to. Raises: RepositoryError for a path that is no folder; ConfigError when the
    options file is wrong.
    """
    started = time.monotonic()
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    roots = tuple(_root(Path(p)) for p in given)
    options = _with_files(options or LintOptions(), roots)
    context = _context(options, roots)
    models = [m for root in roots for m in root.models if root.is_chosen(m.name)]
    found = sorted(_found(roots, models, context), key=_order)
    kept, silenced = _sift(found, models, options)
    return Report(
        findings=kept,
        silenced=silenced,
        target=context.release.tag,
        models=len(models),
        versions=sum(len(m.versions) for m in models),
        seconds=time.monotonic() - started,
    )


def _root(path: Path) -> RootFolder:
    """What a path stands for: a version's folder, a model's folder, or a repository's root."""
    if not path.is_dir():
        raise RepositoryError(
            "there is no such repository", where=path, fix="name a repository's root, a model's folder or a version's"
        )
    full = path.absolute()
    here = ModelFolder(full.name, path)
    if not here.has_config and RootFolder(path).models:
        return RootFolder(path)
    above = ModelFolder(full.parent.name, _parent(path))
    if VERSION.fullmatch(full.name) and not here.has_config and is_model(above):
        return RootFolder(_parent(_parent(path)), chosen=(above.name,), only=full.name)
    if is_model(here):
        return RootFolder(_parent(path), chosen=(here.name,))
    return RootFolder(path)


def _parent(path: Path) -> Path:
    """The folder above, in the words in which the path was given where these allow it."""
    return path.parent if path.name and path.parent != path else path.absolute().parent


def _with_files(options: LintOptions, roots: Sequence[RootFolder]) -> LintOptions:
    if not options.find_file:
        return options
    files = {file.resolve(): file for root in roots if (file := find_options_file(root.path))}
    for file in files.values():
        options = merged(options, read_options(file))
    return options


def _context(options: LintOptions, roots: tuple[RootFolder, ...]) -> Context:
    models: dict[str, ModelFolder] = {}
    for root in roots:
        for model in root.models:
            models.setdefault(model.name, model)
    return Context(
        release=release(options.target or DEFAULT_TARGET),
        cpus=options.cpus,
        gpu=options.gpu,
        latency_budget_ms=options.latency_budget_ms,
        shm_bytes=options.shm_bytes,
        digests=options.digests,
        roots=roots,
        models=models,
    )


def _found(roots: Sequence[RootFolder], models: Sequence[ModelFolder], context: Context) -> Iterator[Finding]:
    for rule in all_rules():
        if rule.repository_check is not None:
            for fault in rule.repository_check(roots, context):
                yield _finding(rule, fault, None)
            continue
        assert rule.model_check is not None
        for model in models:
            if model.config is None and rule.needs_config:
                continue
            for fault in rule.model_check(model, context):
                yield _finding(rule, fault, model)


def _finding(rule: Rule, fault: Fault, model: ModelFolder | None) -> Finding:
    file = fault.file or (model.config_path if model else None)
    return Finding(
        rule=rule.id,
        severity=fault.severity or rule.severity,
        model=fault.model or (model.name if model else ""),
        file=printable(str(file or "")),
        place=printable(fault.place),
        message=printable(fault.message),
        got=printable(fault.got),
        expected=printable(fault.expected),
        fix=printable(fault.fix),
        fixable=fault.mend is not None,
        mend=fault.mend,
        folder=model.path if model else None,
    )


def printable(text: str) -> str:
    """Text for a terminal and for JSON: file names may hold bytes that are no UTF-8, and control characters."""
    safe = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in safe)


def _order(finding: Finding) -> tuple[str, str, str, str, str]:
    return (finding.model, finding.rule, finding.file, finding.place, finding.message)


def _sift(
    found: Sequence[Finding], models: Sequence[ModelFolder], options: LintOptions
) -> tuple[tuple[Finding, ...], tuple[Silenced, ...]]:
    """Part what is asked for from what was switched off, by the options or by a comment in the model's config."""
    kept: list[Finding] = []
    silenced: list[Silenced] = []
    by_comment = {m.path: offs_of(m) for m in models}
    for finding in found:
        offs = (*options.off, *(by_comment.get(finding.folder, ()) if finding.folder else ()))
        off = next((o for o in offs if o.covers(finding.rule, finding.model)), None)
        if off is None:
            kept.append(finding)
        else:
            silenced.append(Silenced(finding, off))
    return tuple(kept), tuple(silenced)
