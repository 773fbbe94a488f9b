"""Rules R00 to R09: what Triton makes of the files and folders themselves.

Tried on tritonserver 2.51: names of versions, links to nothing, folders that are no models, policies.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

from conch.errors import ConchError
from conch.lint.context import Context
from conch.lint.finding import EditConfig, Fault, Rename, Severity
from conch.lint.model import LARGEST_VERSION, Entry, ModelFolder, RootFolder, VersionFolder
from conch.lint.rules import repository_rule, rule
from conch.lint.switched_off import comment_faults
from conch.manifest import MANIFEST_FILE, SIGNATURE_FILE, sha256
from conch.model_config import ModelConfigMessage
from conch.repository import PYCACHE_GUARD, VERSION

# What std::stoll makes a number of: it stops at the first character that is no digit.
_VERSION_LIKE = re.compile(r"^\s*[+-]?[0-9]")
_LEADING_ZERO = re.compile(r"^0+[0-9]+$")

# Names that editors, loggers and Python make while a model serves.
_CHANGING = """
    *.swp *.swo *~ #*# .#* 4913 *.tmp *.temp *.part *.partial *.crdownload *.bak *.orig *.log *.log.[0-9]* *.pid *.lock
    nohup.out core core.[0-9]* events.out.tfevents.* .DS_Store .ipynb_checkpoints logs log tmp .git .idea .vscode wandb
    .cache .pytest_cache .nfs*
""".split()


@rule("R00", "error", "a file that Triton needs is missing or cannot be read", needs_config=False)
def readable(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton does not load a model whose config.pbtxt does not parse, or whose file is missing, empty or broken.

    Mend the line that is named, or bring the file back. The other rules go on with what can be read.
    """
    if model.error:
        yield Fault("the model's folder cannot be read", got=model.error, file=model.path)
    yield from comment_faults(model)
    if model.config is None:
        yield Fault(
            "config.pbtxt does not parse",
            got=model.config_error,
            expected="protobuf text of Triton's ModelConfig",
            fix="mend the line named above; fields are listed in Triton's model_config.proto",
        )
    for entry in model.entries:
        if entry.broken:
            yield _broken_link(entry, "a link leads to nothing: Triton cannot look at it, and does not load the model")
    for entry in (e for v in model.served for e in v.entries):
        if entry.broken:
            yield _broken_link(entry, "a link leads to nothing: whatever needs it fails", severity="warning")
    if model.config is not None:
        for version in model.served:
            yield from _model_file(model, version)


def _broken_link(entry: Entry, message: str, severity: Severity | None = None) -> Fault:
    return Fault(
        message,
        got=f"{entry.name} -> {_link_target(entry.path)}",
        expected="a file or folder that is there",
        fix=f"rm {quote(str(entry.path))}",
        file=entry.path,
        severity=severity,
    )


def _link_target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        return error.strerror or str(error)


def _model_file(model: ModelFolder, version: VersionFolder) -> Iterator[Fault]:
    config = model.config
    # Both may bring a file of another name, or one that comes to be at load.
    elsewhere = config is not None and (config.cc_model_filenames or config.HasField("model_repository_agents"))
    name = model.model_file
    if not name or elsewhere:
        return
    path = version.path / name
    if not os.path.lexists(path):
        near = ", ".join(e.name for e in version.entries if e.name not in (MANIFEST_FILE, PYCACHE_GUARD))
        yield Fault(
            f"version {version.name} lacks the model's file",
            got=near or "an empty folder",
            expected=name,
            fix=f"bring {name} back, or name the file with default_model_filename",
            file=path,
        )
    elif model.backend == "onnxruntime" and (error := version.onnx_error(name)) is not None:
        yield Fault(
            error.what,
            got=str(error.got or ""),
            expected="an ONNX model",
            fix=error.fix or "export the model again",
            file=path,
        )
    elif path.is_file() and path.stat().st_size == 0:
        yield Fault("the model's file is empty", got="0 bytes", fix="export the model again", file=path)


@rule("R01", "error", "a folder that Triton takes for a version is not named as one", needs_config=False)
def version_names(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton reads the number that a folder's name begins with: it takes `3.tmp` or `3_old` for version 3.

    It then looks for a folder `3`, and the model does not load; or `3` is there too, half a copy beside the whole.
    Version folders are named 1, 2, 3 ...: digits, the first not 0. Put versions together outside of the repository
    and rename them into it; keep old ones elsewhere.
    """
    for entry in model.entries:
        name = entry.name
        if not entry.is_folder or VERSION.fullmatch(name) or not _VERSION_LIKE.match(name) or _is_zero_led(name):
            continue
        if _number(name) > LARGEST_VERSION:
            continue  # R03
        yield Fault(
            f"Triton takes this folder for version {_number(name)}",
            got=name,
            expected="a version: digits, the first not 0; or a name that does not begin with a digit",
            fix=f"mv {quote(str(entry.path))} {quote(str(_outside(model)))}",
            file=entry.path,
        )


def _outside(model: ModelFolder) -> Path:
    """The folder that the repository lies in."""
    return model.path.absolute().parent.parent


def _free_version(model: ModelFolder) -> str:
    return str(model.versions[-1].number + 1) if model.versions else "1"


def _is_zero_led(name: str) -> bool:
    return bool(_LEADING_ZERO.match(name))


def _number(name: str) -> int:
    found = re.match(r"\s*([+-]?[0-9]+)", name)
    return int(found.group(1)) if found else 0


@rule("R02", "error", "a version has a leading zero", fixable=True, needs_config=False)
def leading_zero(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton ignores a version folder with a leading zero: `01` is never served.

    Rename it to the number without zeros.
    """
    for entry in model.entries:
        if not entry.is_folder or not _is_zero_led(entry.name):
            continue
        due = entry.name.lstrip("0")
        target = model.path / due
        free = bool(due) and not os.path.lexists(target)
        yield Fault(
            "Triton ignores a version with a leading zero",
            got=entry.name,
            expected=due or "a number from 1",
            fix=f"mv {quote(str(entry.path))} {quote(str(target if free else model.path / _free_version(model)))}",
            file=entry.path,
            mend=Rename(f"version {entry.name} renamed to {due}", entry.path, target) if free else None,
        )


@rule("R03", "error", "a version's number is over 2^63-1", needs_config=False)
def version_range(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton keeps a version in 64 bits; a larger number is an error that the server does not catch, and it stops.

    Rename the folder to a smaller number. A time stamp in seconds or milliseconds fits.
    """
    for entry in model.entries:
        if entry.is_folder and _VERSION_LIKE.match(entry.name) and abs(_number(entry.name)) > LARGEST_VERSION:
            yield Fault(
                "the server stops at a version that does not fit into 64 bits",
                got=entry.name,
                expected=f"at most {LARGEST_VERSION}",
                fix=f"mv {quote(str(entry.path))} {quote(str(model.path / _free_version(model)))}",
                file=entry.path,
            )


@repository_rule("R04", "error", "a folder in the repository's root is no model")
def only_models(roots: Sequence[RootFolder], context: Context) -> Iterator[Fault]:
    """Triton tries every folder in the root as a model; one that is none (.git, .staging) fails to load.

    With the server's defaults a model that fails at the start ends it. Move the folder out of the repository. A link
    to nothing is worse: Triton cannot look at it and gives up on the whole repository.
    """
    for root in roots:
        if root.error:
            yield Fault("the repository cannot be read", got=root.error, file=root.path)
        if root.chosen:
            continue
        models = {m.name for m in root.models}
        for entry in root.entries:
            if entry.broken:
                yield _broken_link(entry, "a link leads to nothing: Triton gives up on the whole repository")
            elif entry.is_folder and entry.name not in models:
                yield Fault(
                    "Triton tries this folder as a model",
                    got=f"{entry.name}, with neither config.pbtxt nor a version",
                    expected="models only",
                    fix=f"mv {quote(str(entry.path))} {quote(str(root.path.absolute().parent))}",
                    file=entry.path,
                )


@rule("R05", "error", "the config's name is not the folder's", fixable=True)
def name_matches(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton refuses a model whose config.pbtxt has another name than its folder.

    Write the folder's name, or leave the field out.
    """
    assert model.config is not None
    if model.config.name in ("", model.name):
        return

    def edit(config: ModelConfigMessage) -> None:
        config.name = model.name

    printable = model.name.isascii() and model.name.isprintable()
    yield Fault(
        "Triton refuses a model with another name than its folder",
        got=model.config.name,
        expected=model.name,
        fix=f'name: "{model.name}"',
        place="name",
        mend=EditConfig(f"name: {model.name}", edit) if printable else None,
    )


@rule("R06", "warning", "a file beside the versions changes while the model serves", needs_config=False)
def changing_files(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """In poll mode Triton looks at the newest time stamp in a model's folder: each touch loads every version again.

    Editors' swap files, logs and half-written files do that. Move them out; write logs elsewhere.
    """
    entries = [*model.entries, *(e for v in model.versions for e in v.entries)]
    for entry in entries:
        if entry.broken or not any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _CHANGING):
            continue
        if entry.is_folder and _VERSION_LIKE.match(entry.name):
            continue  # R01
        yield Fault(
            "in poll mode each change to this reloads every version",
            got=entry.path.relative_to(model.path).as_posix(),
            expected="files that stay as they are",
            fix=f"mv {quote(str(entry.path))} {quote(str(_outside(model)))}",
            file=entry.path,
        )


@rule("R07", "error", "the version policy selects what is not there")
def policy_selects(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A model of which no version is selected does not load; versions that are named and missing are only logged.

    Name versions that exist, or leave version_policy out: then the latest is served.
    """
    assert model.config is not None
    if model.only:
        return
    there = ", ".join(v.name for v in model.versions)
    policy = model.config.version_policy
    named = policy.specific.versions if policy.WhichOneof("policy_choice") == "specific" else ()
    missing = sorted(set(named) - {v.number for v in model.versions})
    if not model.versions:
        yield Fault(
            "the model has no version, and does not load",
            got=", ".join(e.name for e in model.entries) or "an empty folder",
            expected="a folder named 1",
            fix="export or publish one",
            place="version_policy",
            severity="warning",  # a repository without its weights, as git keeps it
        )
    elif not model.served:
        yield Fault(
            "the version policy selects no version, and the model does not load",
            got=" ".join(str(policy).split()) or "version_policy { }",
            expected=f"one of {there}",
            fix=f"version_policy {{ specific {{ versions: [{model.versions[-1].name}] }} }}, or leave it out",
            place="version_policy",
        )
    elif missing:
        yield Fault(
            "the version policy names versions that are not there",
            got=", ".join(str(v) for v in missing),
            expected=f"some of {there}",
            fix=f"version_policy {{ specific {{ versions: [{', '.join(v.name for v in model.served)}] }} }}",
            place="version_policy.specific.versions",
        )


@repository_rule("R08", "error", "the same model is in two repositories")
def unique_models(roots: Sequence[RootFolder], context: Context) -> Iterator[Fault]:
    """Given two repositories with a model of the same name, Triton unloads it: it cannot tell which is meant.

    Keep the model in one of them, or rename it.
    """
    first: dict[str, RootFolder] = {}
    for root in {r.path.resolve(): r for r in roots}.values():
        for model in root.models:
            other = first.setdefault(model.name, root)
            if other is not root and (root.is_chosen(model.name) or other.is_chosen(model.name)):
                yield Fault(
                    "Triton serves neither of two models with one name",
                    got=f"{other.path / model.name} and {model.path}",
                    expected="one of them",
                    fix=f"mv {quote(str(model.path))} {quote(f'{model.path}_2')}, and put that name into its config",
                    model=model.name,
                    file=model.path,
                )


@rule("R09", "error", "a version is not what its manifest says", needs_config=False)
def unchanged(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A version folder never changes: rollback, comparison and everyone who has loaded it rely on that.

    Bring the files back that the manifest lists, and publish what was changed as a version of its own.
    """
    for version in model.versions:
        path = version.path / MANIFEST_FILE
        if version.manifest_error:
            yield Fault("manifest.json cannot be read", got=version.manifest_error, file=path, place=version.name)
        if version.manifest is None:
            continue
        try:
            yield from _compare(version, version.manifest.files, context.digests)
        except (OSError, ConchError, AttributeError, TypeError) as error:
            yield Fault("the version cannot be compared with its manifest", got=str(error), file=path)


def _compare(version: VersionFolder, due: object, digests: bool) -> Iterator[Fault]:
    if not isinstance(due, dict):
        yield Fault("manifest.json lists no files", got=type(due).__name__, file=version.path / MANIFEST_FILE)
        return
    # Python writes bytecode into the folder; R37 is about that.
    listed = {f for f in due if PYCACHE_GUARD not in f.split("/")}
    there = {f for f in version.files if PYCACHE_GUARD not in f.split("/")} - {MANIFEST_FILE, SIGNATURE_FILE}
    republish = f"bring it back, and publish the change: conch repo publish {version.path}"
    for file in sorted(listed - there):
        yield _differs(version, file, "is missing", "no such file", str(due[file]), "bring it back, or export again")
    for file in sorted(there - listed):
        yield _differs(version, file, "is not in the manifest", "a file that came later", "the files listed", republish)
    for file in sorted(listed & there) if digests else ():
        path = version.path / file
        if not stat.S_ISREG(path.stat().st_mode):
            continue
        found = sha256(path)
        if found != due[file]:
            yield _differs(version, file, "was changed", f"SHA-256 {found}", f"SHA-256 {due[file]}", republish)


def _differs(version: VersionFolder, file: str, what: str, got: str, expected: str, fix: str) -> Fault:
    return Fault(
        f"{file} {what} in version {version.name}",
        got=got,
        expected=expected,
        fix=fix,
        place=f"{version.name}/{file}",
        file=version.path / file,
    )
