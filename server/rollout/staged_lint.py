"""Lint what is staged, among the live models that it will meet."""

from __future__ import annotations

import dataclasses

from conch import lint
from conch.errors import RepositoryError
from conch.lint import Finding, LintOptions
from conch.lint.options import find_options_file, merged, read_options
from conch.repository import Repository
from server.rollout.candidate import Candidate
from server.rollout.scratch_repository import BEFORE, Scratch


def check(scratch: Scratch, candidate: Candidate, live: Repository, target: str | None) -> tuple[str, ...]:
    """Lint the scratch repository. Returns the candidate's warnings. Raises: RepositoryError for errors.

    An error in an ensemble that uses the candidate counts, unless the ensemble has it already. The repository's own
    options file says what is switched off.
    """
    options = LintOptions(target=target, digests=False)
    file = find_options_file(live.root)
    if file is not None:
        options = merged(options, read_options(file))
    # What stands beside the candidate for a comparison serves already.
    found = [f for f in lint.check(scratch.root, options).findings if not f.model.endswith(BEFORE)]
    own = [f for f in found if f.model in candidate.names]
    others = [f for f in found if f.severity == "error" and f.model not in candidate.names]
    if others:
        known = {_key(f) for f in lint.check(live.root, options).errors}
        others = [f for f in others if _key(f) not in known]
    errors = [f for f in own if f.severity == "error"] + others
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more: `conch repo lint` on the source shows them)" if len(errors) > 1 else ""
        raise RepositoryError(
            f"{first.rule} {first.message}{more}",
            where=f"{first.model}: {first.place or 'config.pbtxt'}",
            got=first.got or None,
            expected=first.expected or None,
            fix=first.fix or None,
        )
    return tuple(_line(f) for f in own if f.severity == "warning")


def _key(finding: Finding) -> Finding:
    """The finding without the place of its repository."""
    return dataclasses.replace(finding, file="")


def _line(finding: Finding) -> str:
    return f"{finding.rule} {finding.model}: {finding.message}" + (f" (fix: {finding.fix})" if finding.fix else "")
