"""The documented ways to ask as OpenAI's clients do, run as they stand; only the address is another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.control import Control
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.conftest import Triton
from tests.fakes.sample_stand_ins import add_stand_ins
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOCUMENTED = "http://127.0.0.1:9000"
PAGES = ("examples/gateway/openai.md", "README.md")
PATHS = ("chat/completions", "completions", "embeddings", "rerank", "models", "models/chat")

# The share of a query's words that are in a document.
RERANK = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(*(pb_utils.get_input_tensor_by_name(r, n).as_numpy() for n in NAMES)) for r in requests]

    def answer(self, queries, documents):
        pairs = [(set(q.split()), set(d.split())) for q, d in zip(queries.ravel(), documents.ravel())]
        scores = np.array([[len(q & d) / len(q)] for q, d in pairs], np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("score", scores)])


NAMES = ("text", "text_pair")
"""
RERANK_CONFIG = """
    backend: "python"
    max_batch_size: 8
    input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
    input { name: "text_pair" data_type: TYPE_STRING dims: [ 1 ] }
    output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def blocks(language: str) -> list[str]:
    """The fenced blocks of the pages that name one of our paths, or the client."""
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    return [block for page in pages for block in re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)]


def lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if f"{DOCUMENTED}/v1/" in line]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway before a Triton of its own: the models have the samples' names."""
    repository = tmp_path_factory.mktemp("samples")
    options = ServerOptions(control="explicit", http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with EmbeddedServer(repository, options) as server:
        triton = Triton(server, repository, Control(server.grpc_url))
        add_stand_ins(triton, "embeddings")
        triton.add("rerank", RERANK_CONFIG, {"model.py": RERANK})
        with running_gateway(triton) as gateway:
            wait_ready(gateway)
            yield gateway.url


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", lines())
def test_a_documented_line_is_answered(url: str, line: str) -> None:
    command = line.replace(DOCUMENTED, url).replace("curl -s", "curl --fail-with-body -s")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("data: [DONE]\n\n") if '"stream": true' in line else done.stdout.startswith("{")


def test_the_documented_program_runs(url: str, tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "from openai" in block and DOCUMENTED in block][:1]
    (tmp_path / "ask.py").write_text(program.replace(DOCUMENTED, url), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "ask.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("2 384")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_documented(path: str) -> None:
    assert any(re.search(rf"/v1/{path}( |$)", line) for line in lines())
