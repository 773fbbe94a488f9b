"""The linter and the real server agree: what is an error offline does not load, and what is none does.

One server with every repository fault that it can meet without a model file: Python models and ensembles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from conch.lint import LintOptions, check
from server import binary
from server.control import Control
from tests.conftest import StartServer

pytestmark = pytest.mark.integration

CODE = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        x = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", v)]) for v in x]
"""
TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""
MEMBER = 'backend: "python" max_batch_size: 8' + TENSORS
ENSEMBLE = 'platform: "ensemble" max_batch_size: 8' + TENSORS


def steps(*wiring: tuple[str, str, str], version: int = -1, before: str = "") -> str:
    """Steps of (member, the tensor it reads, the tensor it writes)."""
    each = [
        f'step {{ model_name: "{member}" model_version: {version} '
        f'input_map {{ key: "x" value: "{source}" }} output_map {{ key: "y" value: "{target}" }} }}'
        for member, source, target in wiring
    ]
    return f"ensemble_scheduling {{ {before} {' '.join(each)} }}"


MEMBERS: Mapping[str, str] = {
    "one": MEMBER,
    "two": MEMBER,
    "decoupled": MEMBER + "model_transaction_policy { decoupled: true }",
    "integers": MEMBER.replace("TYPE_FP32", "TYPE_INT64"),
    "wide": MEMBER.replace("[ 4 ]", "[ 5 ]"),
    "any": MEMBER.replace("[ 4 ]", "[ -1 ]"),
    "unbatched": MEMBER.replace("8", "0").replace("[ 4 ]", "[ -1, 4 ]"),
    "on_gpu": MEMBER + "instance_group { kind: KIND_GPU }",
    "on_named_gpu": MEMBER + "instance_group { kind: KIND_AUTO gpus: [ 0 ] }",
    "on_any": MEMBER + "instance_group { kind: KIND_AUTO }",
    "prefers_too_much": MEMBER + "dynamic_batching { preferred_batch_size: [ 9 ] }",
    "prefers": MEMBER + "dynamic_batching { preferred_batch_size: [ 4 ] }",
    "cannot_merge": MEMBER.replace("8", "0") + "dynamic_batching { }",
    "cached": MEMBER + "response_cache { enable: true }",
    "cached_decoupled": MEMBER + "response_cache { enable: true } model_transaction_policy { decoupled: true }",
    "cached_sequence": MEMBER + "response_cache { enable: true } sequence_batching { }",
    "no_environment": MEMBER
    + 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/lost.tar.gz" } }',
}
ENSEMBLES: Mapping[str, str] = {
    "e_right": ENSEMBLE + steps(("one", "x", "t"), ("two", "t", "y")),
    "e_any": ENSEMBLE + steps(("any", "x", "t"), ("two", "t", "y")),
    "e_unbatched": ENSEMBLE + steps(("unbatched", "x", "t"), ("two", "t", "y")),
    "e_cached": ENSEMBLE + "response_cache { enable: true }" + steps(("one", "x", "y")),
    "e_backend": ENSEMBLE + 'backend: "python"' + steps(("one", "x", "y")),
    "e_instances": ENSEMBLE + "instance_group { count: 1 }" + steps(("one", "x", "y")),
    "e_optimization": ENSEMBLE + "optimization { graph { level: 1 } }" + steps(("one", "x", "y")),
    "e_warmup": ENSEMBLE + 'model_warmup { name: "w" batch_size: 1 }' + steps(("one", "x", "y")),
    "e_no_steps": ENSEMBLE,
    "e_types": ENSEMBLE + steps(("one", "x", "t"), ("integers", "t", "y")),
    "e_shapes": ENSEMBLE + steps(("one", "x", "t"), ("wide", "t", "y")),
    "e_twice": ENSEMBLE + steps(("one", "x", "y"), ("two", "x", "y")),
    "e_over_input": ENSEMBLE + steps(("one", "x", "x"), ("two", "x", "y")),
    "e_unused": ENSEMBLE + steps(("one", "x", "y"), ("two", "x", "z")),
    "e_unwritten": ENSEMBLE + steps(("one", "x", "t"), ("two", "s", "y")),
    "e_circle": ENSEMBLE + steps(("one", "t", "s"), ("two", "s", "t"), ("one", "x", "y")),
    "e_missing": ENSEMBLE + steps(("nobody", "x", "y")),
    "e_batch": ENSEMBLE.replace("8", "9") + steps(("one", "x", "y")),
    "e_pinned": ENSEMBLE + steps(("one", "x", "y"), version=1),
    "e_pinned_lost": ENSEMBLE + steps(("one", "x", "y"), version=7),
    "e_version_0": ENSEMBLE + steps(("one", "x", "y"), version=0),
    "e_cached_decoupled": ENSEMBLE + "response_cache { enable: true }" + steps(("decoupled", "x", "y")),
    "e_decoupled": ENSEMBLE + steps(("decoupled", "x", "t"), ("one", "t", "y")),
    "e_limited": ENSEMBLE + steps(("decoupled", "x", "t"), ("one", "t", "y"), before="max_inflight_requests: 4"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("agrees") / "repository"
    for name, config in {**MEMBERS, **ENSEMBLES}.items():
        version = root / name / "1"
        version.mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(config)
        if name in MEMBERS:
            (version / "model.py").write_text(CODE)
    return root


def test_the_server_refuses_what_is_an_error_and_loads_the_rest(repository: Path, start_server: StartServer) -> None:
    report = check(repository, LintOptions(gpu=binary.has_gpu()))
    errors = {f.model for f in report.errors}

    server = start_server(repository, strict=False)
    with Control(server.grpc_url) as control:
        ready = {m.name for m in control.index() if m.state == "READY"}

    assert errors == (MEMBERS.keys() | ENSEMBLES.keys()) - ready
    assert {"e_right", "e_any", "e_unbatched", "e_over_input", "e_pinned", "one"} <= ready
    assert {"e_types", "e_circle", "e_limited", "no_environment"} <= errors
