"""Rules R32 to R38: what a backend must find where it runs: its files, its packages, its memory.

What Triton refuses here was tried on tritonserver 2.51.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from conch.lint.context import Context
from conch.lint.finding import Fault, GuardFile
from conch.lint.json_config import config_in, read_json, short, wrong_maps
from conch.lint.model import Entry, ModelFolder, RootFolder, VersionFolder, entries_of, read_text
from conch.lint.python_imports import Import, Unparsed, unresolved
from conch.lint.rules import repository_rule, rule
from conch.model_config import ModelConfig
from conch.repository import PYCACHE_GUARD

MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"

# The Python backend's defaults (shm-default-byte-size, shm-growth-byte-size): 1 MiB for each instance, then 1 MiB more
# whenever its tensors need it. Measured on tritonserver 2.51: one region of 1,048,576 bytes an instance.
_REGION_BYTES = 1 << 20
# docker takes --shm-size in units; whole 64 MiB read better than an odd number, and leave room.
_SHM_STEP_BYTES = 64 << 20

_TYPE_BYTES = {"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2}
_TYPE_BYTES |= {"UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8}


@rule("R32", "error", "an ONNX file newer than the target's ONNX Runtime")
def onnx_version(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A release of Triton carries one ONNX Runtime, which loads no later IR and no later opset than it knows.

    Export again for the target (`conch export --target`), or choose a newer release.
    """
    limits = context.release
    for version, header in model.headers():
        said = (
            ("IR", header.ir_version, limits.max_ir_version, "ir_version"),
            ("opset", header.opset() or 0, limits.max_opset, "opset_import"),
        )
        for what, got, most, place in said:
            if got > most:
                yield Fault(
                    f"{what} {got} > {most} for {limits.tag}",
                    got=f"{what} {got}",
                    expected=f"at most {what} {most}: release {limits.tag} has ONNX Runtime {limits.onnxruntime}",
                    fix=f"export again with --target {limits.tag}, or serve with a newer release",
                    place=place,
                    file=version.onnx_path(model.model_file),
                )


@rule("R33", "error", "weights of an ONNX file that are not beside it")
def external_data(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A large ONNX file keeps its weights in other files. They must lie in the version folder, where it says.

    ONNX Runtime refuses paths that lead out of the folder. Copy the files into it under the names that the model has,
    or save the model again with its weights beside it.
    """
    for version, header in model.headers():
        path = version.onnx_path(model.model_file)
        for location in sorted({i.external for i in header.initializers if i.external is not None}):
            problem = _external_problem(path.parent, location)
            if problem:
                weights = [i.name for i in header.initializers if i.external == location]
                yield Fault(
                    f"external data of the ONNX file {problem}",
                    got=f'location "{location}" of {weights[0]}'
                    + (f" and {len(weights) - 1} more weights" if len(weights) > 1 else ""),
                    expected=f"a file in {path.parent}",
                    fix=f"copy {posixpath.basename(location) or 'it'} beside {path.name}, or save the model again "
                    "with its weights beside it",
                    place=f"initializer[{weights[0]}]",
                    file=path,
                )


def _external_problem(folder: Path, location: str) -> str:
    normal = posixpath.normpath(location)
    if not location or posixpath.isabs(location) or normal == ".." or normal.startswith("../"):
        return "lies outside of the version folder" if location else "has no location"
    try:
        return "" if (folder / location).is_file() else "is missing"
    except (OSError, ValueError):  # a name that no file can have
        return "is missing"


@rule("R34", "error", "a Python environment that is not in the repository")
def execution_environment(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """EXECUTION_ENV_PATH must be found on the machine that serves: keep the environment in the model's folder.

    Write `$$TRITON_MODEL_DIRECTORY/NAME.tar.gz`: Triton puts the folder's path in, wherever the repository lies.
    """
    config = model.config
    assert config is not None
    if "EXECUTION_ENV_PATH" not in config.parameters:
        return
    value = config.parameters["EXECUTION_ENV_PATH"].string_value
    place = "parameters[EXECUTION_ENV_PATH]"
    if value.startswith(MODEL_DIRECTORY):
        inside = value.removeprefix(MODEL_DIRECTORY).strip("/")
        if not _exists(model.path / inside) or not inside:
            yield Fault(
                "the environment is not in the model's folder: Triton does not load the model",
                got=value,
                expected=f"a packed environment at {model.path / inside}" if inside else "a file below the folder",
                fix=f"pack it: conda-pack -o {model.path / (inside or 'environment.tar.gz')}",
                place=place,
            )
        return
    if "://" in value:  # object storage: the same from everywhere, and nothing to look at offline
        return
    name = posixpath.basename(value.rstrip("/")) or "environment.tar.gz"
    yield Fault(
        "the environment is a path of one machine",
        got=value or "nothing",
        expected=f"{MODEL_DIRECTORY}/{name}",
        fix=f'copy it into {model.path}, and write string_value: "{MODEL_DIRECTORY}/{name}"',
        place=place,
        severity="warning",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


@repository_rule("R35", "error", "less shared memory than the Python models need")
def shared_memory(roots: Sequence[RootFolder], context: Context) -> Iterator[Fault]:
    """Each instance of a Python model takes 1 MiB of /dev/shm to load, and more for tensors that are larger.

    Docker gives a container 64 MiB unless `--shm-size` says otherwise; too little fails a load, or a request later.
    Asked only when the target's size is given. Tensors of variable size are not counted: it is a lower bound.
    """
    if context.shm_bytes is None or not roots:
        return
    models = [m for root in roots for m in root.models if m.config is not None and m.backend == "python"]
    counted = [(m.name, _instances(m), _instance_bytes(m)) for m in models]
    to_load = sum(instances * _REGION_BYTES for _, instances, _ in counted)
    to_serve = sum(instances * size for _, instances, size in counted)
    if to_serve <= context.shm_bytes:
        return
    steps = -(-to_serve // _SHM_STEP_BYTES)
    largest = sorted(counted, key=lambda row: -row[1] * row[2])[:3]
    shares = ", ".join(f"{name} {n} x {size >> 20} MiB" for name, n, size in largest)
    loads = to_load <= context.shm_bytes
    yield Fault(
        "/dev/shm is too small for the largest batches of the Python models"
        if loads
        else "/dev/shm is too small to load the Python models",
        got=f"{context.shm_bytes / (1 << 20):.1f} MiB",
        expected=f"at least {to_serve >> 20} MiB for {sum(n for _, n, _ in counted)} Python instances ({shares})",
        fix=f"start the container with --shm-size={steps * (_SHM_STEP_BYTES >> 20)}m",
        place="/dev/shm",
        file=roots[0].path,
        severity="warning" if loads else None,
    )


def _instances(model: ModelFolder) -> int:
    """How many instances of a Python model run: of each group, on each GPU named, of each version served."""
    groups = (model.config or ModelConfig()).instance_group
    each = sum(max(1, g.count) * max(1, len(g.gpus)) for g in groups) if groups else 1
    return each * len(model.served)


def _instance_bytes(model: ModelFolder) -> int:
    """What one instance's region comes to with a full batch in it."""
    config = model.config or ModelConfig()
    tensors = [*config.input, *config.output]
    batch = max(1, config.max_batch_size) * sum(_tensor_bytes(t) for t in tensors)
    return int(_REGION_BYTES * (1 + batch // _REGION_BYTES))


def _tensor_bytes(tensor: Any) -> int:
    """The bytes of one item; 0 where they are not known (strings, variable dims)."""
    from tritonclient.grpc import model_config_pb2

    names = model_config_pb2.DataType.DESCRIPTOR.values_by_number
    name = names[tensor.data_type].name.removeprefix("TYPE_") if tensor.data_type in names else ""
    return _TYPE_BYTES.get(name, 0) * int(prod(tensor.dims)) if all(d > 0 for d in tensor.dims) else 0


@repository_rule("R36", "error", "a JSON config written as protobuf text")
def json_override(roots: Sequence[RootFolder], context: Context) -> Iterator[Fault]:
    """The config of a load call is JSON, and writes parameters otherwise than config.pbtxt does.

    There, they are one object: `"parameters": {"key": {"string_value": "value"}}`, and so are input_map, output_map and
    the like; a list of key and value, or a bare string, is refused. Looked for in *.json beside config.pbtxt, in its
    `configs` folder and in the root, if it has the fields of a config and no others.
    """
    for root in roots:
        for entry in root.entries:
            yield from _override_faults(entry, "")
        for model in root.models:
            if root.is_chosen(model.name):
                for entry in _beside_config(model):
                    yield from _override_faults(entry, model.name)


def _beside_config(model: ModelFolder) -> Iterator[Entry]:
    yield from model.entries
    if any(e.name == "configs" and e.is_folder for e in model.entries):
        try:
            yield from entries_of(model.path / "configs")
        except OSError:
            return


def _override_faults(entry: Entry, model: str) -> Iterator[Fault]:
    if not entry.name.endswith(".json") or entry.is_folder:
        return
    config = config_in(read_json(read_text(entry.path)[0]))
    if config is not None:
        for place, got, due in wrong_maps(config):
            yield Fault(
                "a field of a JSON config is written as in config.pbtxt",
                got=f'"{place}": {short(got)}',
                expected=f'"{place}": {short(due)}',
                fix=f'write "{place.rpartition(".")[2]}": {short(due)}',
                place=place,
                file=entry.path,
                model=model,
            )


@rule("R37", "note", "a Python model that is loaded twice in poll mode", fixable=True)
def bytecode(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Importing model.py writes `__pycache__` into the version folder; poll mode takes that for a change.

    Every version is then loaded a second time right after the first. An empty *file* of that name stops the writing. A
    version with a manifest is not touched by --fix: publish it anew, which puts the file in.
    """
    if model.backend != "python":
        return
    for version in model.versions:
        guard = version.entry(PYCACHE_GUARD)
        if version.entry(model.model_file) is None or (guard is not None and not guard.is_folder):
            continue
        published = version.manifest is not None or version.manifest_error
        path = version.path / PYCACHE_GUARD
        fix = f"rm -r {path} && touch {path}" if guard else f"touch {path}"
        if published:
            fix = "publish the version anew with `conch repo publish`"
        yield Fault(
            "Python will write its bytecode into the version folder, and poll mode load every version twice",
            got="a folder __pycache__" if guard else "no __pycache__",
            expected="an empty file of that name",
            fix=fix,
            place=PYCACHE_GUARD,
            file=version.path,
            mend=None if published else GuardFile(f"puts an empty file {PYCACHE_GUARD} into the version folder", path),
        )


@rule("R38", "warning", "a Python model that imports what is not there")
def imports(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """What model.py and its own files import must come from the version folder, its manifest's packages or Python.

    An import that is missing fails the load, or the first request when it stands in a function. Without a manifest or a
    requirements.txt nobody says which packages there are: then it is a note. An environment of its own
    (EXECUTION_ENV_PATH) is not looked into.
    """
    config = model.config
    assert config is not None
    if model.backend != "python":
        return
    for version in model.served:
        if version.entry(model.model_file) is None:
            continue
        packages = _packages(version)
        packed = "EXECUTION_ENV_PATH" in config.parameters
        told: set[str] = set()
        for found in unresolved(version, packages or (), model.model_file):
            if isinstance(found, Unparsed):
                yield Fault(
                    "a source file of the model is no Python that can be read",
                    got=found.reason,
                    expected="Python",
                    fix="mend the line named above",
                    file=version.path / found.file,
                    severity="error",
                )
            elif not packed and found.module not in told:
                told.add(found.module)
                yield _import_fault(found, version, packages)


def _import_fault(found: Import, version: VersionFolder, packages: Sequence[str] | None) -> Fault:
    said = "nothing says which packages are there"
    if packages is not None:
        said = f"packages: {', '.join(packages) or 'none'}"
    return Fault(
        f"{found.module} is imported, and nothing brings it",
        got=f"import {found.module}" + (" in a function: it fails at a request" if found.in_function else ""),
        expected=f"a file in {version.path}, or a package ({said})",
        fix=f"put {found.module} into the version's packages (requirements.txt), or its file into the version folder",
        place=f"line {found.line}",
        file=version.path / found.file,
        severity=None if packages is not None else "note",
    )


def _packages(version: VersionFolder) -> tuple[str, ...] | None:
    """The packages that the version says it needs; None when it says nothing."""
    if version.manifest is not None:
        return tuple(version.manifest.packages)
    if version.entry("requirements.txt") is None:
        return None
    lines = (read_text(version.path / "requirements.txt")[0] or "").splitlines()
    return tuple(stripped for line in lines if (stripped := line.split("#")[0].strip()) and stripped[0] != "-")
