"""Every path of /openapi.json is asked for what nobody thought of, by schemathesis; nothing may end in a 500.

The models are real: a small Llama in the engine that serves large ones, and models of every data type. What the
document leaves open is narrowed, so that requests reach the models: their names, and how much text they generate.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conch.tensor_spec import ModelSignature, TensorSpec
from server.control import Control
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.conftest import Triton
from tests.fakes import tiny_llama
from tests.fakes.client_models import MIRROR, MIRROR_CONFIG
from tests.fakes.rest_models import FILE, FILE_CONFIG, PEOPLE, PEOPLE_CONFIG
from tests.fakes.sample_stand_ins import add_stand_in, add_stand_ins
from tests.gateway_fixtures import RunningGateway, running_gateway, wait_ready

pytestmark = pytest.mark.integration

MODELS = {
    "/generate": "llama",
    "/stream": "llama",
    "/v1/chat/completions": "llama",
    "/v1/completions": "llama",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
}
SHORT = {
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 4},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 4},
    "n": {"type": "integer", "minimum": 1, "maximum": 2},
}
RERANK = ModelSignature(
    (TensorSpec("text", "BYTES", (1,)), TensorSpec("text_pair", "BYTES", (1,))), (TensorSpec("score", "FP32", (1,)),), 8
)
TYPES = [line for line in MIRROR_CONFIG.splitlines() if re.search('"(BOOL|INT8|UINT64|FP16|BYTES)"|^[a-z_]+:', line)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    pytest.importorskip("openvino_genai")
    repository = tmp_path_factory.mktemp("fuzzed")
    options = ServerOptions(control="explicit", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(repository, options) as server:
        triton = Triton(server, repository, Control(server.grpc_url))
        tiny_llama.write_model(repository, "llama", {"max_num_batched_tokens": "256", "cache_size_gb": "1"})
        triton.load("llama")
        triton.add("people", PEOPLE_CONFIG, {"model.py": PEOPLE})
        triton.add("file", FILE_CONFIG, {"model.py": FILE})
        add_stand_ins(triton, "embeddings")
        add_stand_in(triton, "rerank", RERANK)
        triton.add("many_types", "\n".join(TYPES) + "\n", {"model.py": MIRROR})
        with running_gateway(triton, timeout_s=120.0) as gateway:
            wait_ready(gateway)
            yield gateway


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with the models that are there, and short texts."""
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if (parameter["in"], parameter["name"]) == ("path", "model"):
                    parameter["schema"]["enum"] = ["llama", "people"]
            if path in MODELS:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                body = (
                    document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
                )
                body["properties"]["model"] = {"type": "string", "enum": [MODELS[path]]}
                short = {name: schema for name, schema in SHORT.items() if name in body["properties"]}
                body["properties"] |= short
                body["required"] = sorted({*body.get("required", ()), "model", *short})
    return document


def test_a_prompt_of_100000_tokens_is_refused(served: RunningGateway) -> None:
    asked = {"model": "llama", "prompt": "parcel " * 100_000}
    answers = [httpx.post(f"{served.url}{path}", json=asked, timeout=60) for path in ("/generate", "/stream")]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert {answer.json()["error"]["code"] for answer in answers} == {"context_length_exceeded"}


def test_no_path_ends_in_a_500(served: RunningGateway, tmp_path: Path) -> None:
    document = narrowed(httpx.get(f"{served.url}/openapi.json", timeout=30).json())
    assert {*MODELS, "/predict/many_types", "/predict/file/batch"} <= set(document["paths"])
    (tmp_path / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", served.url]
    command += ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--max-examples", "3"]
    command += ["--seed", "1", "--continue-on-failure", "--no-shrink", "--request-timeout", "60"]
    command += ["--suppress-health-check", "all", "--generation-database", "none", "--no-color", "--warnings", "off"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
