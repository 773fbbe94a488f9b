"""Embeddings, rerank and models through the official openai client, of tiny pipelines in the real Triton."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from clients import Client
from export import steps
from export.from_huggingface import load
from export.options import ExportOptions
from export.quiet import quiet
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from tests.fakes.openai_clients import async_client, sync_client
from tests.fakes.tiny_checkpoints import POSITIONS, TEXTS, write_text_model
from tests.gateway_fixtures import RunningGateway, running_gateway, wait_ready

pytestmark = pytest.mark.integration

BATCH = 4
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "embeddings": ("MPNet", "Model", {}),
    "rerank": ("XLMRoberta", "ForSequenceClassification", {"num_labels": 1}),
}
QUERY = "Where did Maria move?"


@dataclass(frozen=True)
class Served:
    """A gateway that has the repository, one that has not, and a client of the server behind both."""

    gateway: RunningGateway
    without_repository: RunningGateway
    direct: Client
    repository: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    work = tmp_path_factory.mktemp("openai")
    repository = work / "repository"
    for task, (family, head, config) in CASES.items():
        with quiet():
            write_text_model(work / task, family, head, **config)
        options = ExportOptions(name=task, repository=repository, trial=False, max_batch_size=BATCH)
        steps.run(load(str(work / task), task, options), options)
    server = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1)
    with (
        EmbeddedServer(repository, server) as triton,
        Client(triton.grpc_url) as direct,
        running_gateway(triton, repository=repository) as gateway,
        running_gateway(triton) as bare,
    ):
        wait_ready(gateway)
        wait_ready(bare)
        yield Served(gateway, bare, direct, repository)


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with sync_client(served.gateway.url) as connected:
        yield connected


def due(served: Served, texts: Any) -> Any:
    return np.concatenate([served.direct.infer("embeddings", text=[[text]])["embedding"] for text in texts])


def post(url: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


class TestEmbeddings:
    @pytest.mark.parametrize("encoding", [None, "float", "base64"])
    def test_vectors_are_the_model_s(self, client: openai.OpenAI, served: Served, encoding: Any) -> None:
        more: Any = {} if encoding is None else {"encoding_format": encoding}
        answer = client.embeddings.create(model="embeddings", input=TEXTS[1], **more)
        vector: Any = answer.data[0].embedding
        if encoding == "base64":
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        np.testing.assert_allclose([vector], due(served, TEXTS[1:2]), atol=1e-6)
        assert (answer.object, answer.model, answer.data[0].object) == ("list", "embeddings", "embedding")

    @pytest.mark.parametrize("times", [3, 120])
    def test_more_texts_than_a_batch_come_back_in_order(
        self, client: openai.OpenAI, served: Served, times: int
    ) -> None:
        assert times * len(TEXTS) > 4 * BATCH
        answer = client.embeddings.create(model="embeddings", input=list(TEXTS) * times, encoding_format="float")
        assert [row.index for row in answer.data] == list(range(times * len(TEXTS)))
        vectors = np.tile(due(served, TEXTS), (times, 1))
        np.testing.assert_allclose([row.embedding for row in answer.data], vectors, atol=1e-5)

    def test_fewer_dimensions(self, client: openai.OpenAI, served: Served) -> None:
        answer = client.embeddings.create(model="embeddings", input=list(TEXTS[:2]), dimensions=8)
        cut = due(served, TEXTS[:2])[:, :8]
        np.testing.assert_allclose(
            [row.embedding for row in answer.data], cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5
        )

    def test_tokens_are_counted_as_the_model_reads_them(self, client: openai.OpenAI, served: Served) -> None:
        from tokenizers import Tokenizer

        (file,) = served.repository.glob("embeddings*/1/tokenizer.json")
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        counts = [len(tokenizer.encode(text)) for text in TEXTS]
        assert max(counts) < POSITIONS + 1
        usage = client.embeddings.create(model="embeddings", input=list(TEXTS)).usage
        assert (usage.prompt_tokens, usage.total_tokens) == (sum(counts), sum(counts))
        # What the tokenizer cuts off, the model does not read.
        long = client.embeddings.create(model="embeddings", input=["many words " * 50, "x" * 100_000])
        assert long.usage.prompt_tokens == 2 * POSITIONS

    def test_without_the_repository_they_are_estimated(self, served: Served) -> None:
        with sync_client(served.without_repository.url) as client:
            assert client.embeddings.create(model="embeddings", input="twelve bytes").usage.prompt_tokens == 3

    async def test_the_async_client(self, served: Served) -> None:
        async with async_client(served.gateway.url) as client:
            answer = await client.embeddings.create(model="embeddings", input=TEXTS[0])
        np.testing.assert_allclose([answer.data[0].embedding], due(served, TEXTS[:1]), atol=1e-6)

    @pytest.mark.parametrize(
        ("asked", "kind", "code", "param"),
        [
            ({"model": "embedings"}, openai.NotFoundError, "model_not_found", "model"),
            ({"model": "rerank"}, openai.BadRequestError, "wrong_kind_of_model", "model"),
            ({"input": [1, 2, 3]}, openai.BadRequestError, "tokens_not_supported", "input"),
            ({"input": ["a", ""]}, openai.BadRequestError, "invalid_value", "input"),
            ({"input": []}, openai.BadRequestError, "invalid_value", "input"),
            ({"input": ["a"] * 2049}, openai.BadRequestError, "invalid_value", "input"),
            ({"dimensions": 10_000}, openai.BadRequestError, "invalid_value", "dimensions"),
            ({"extra_body": {"truncate": "END"}}, openai.BadRequestError, "unknown_parameter", "truncate"),
        ],
    )
    def test_refusals(
        self, client: openai.OpenAI, asked: dict[str, Any], kind: type[openai.APIStatusError], code: str, param: str
    ) -> None:
        with pytest.raises(kind) as met:
            client.embeddings.create(**{"model": "embeddings", "input": "a", **asked})
        assert (met.value.code, met.value.param) == (code, param)

    def test_langchain_s_tokens_are_told_what_to_do(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model="embeddings", input=[[1, 2], [3]])


class TestRerank:
    @pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
    def test_the_best_document_comes_first(self, served: Served, path: str) -> None:
        asked = {"model": "rerank", "query": QUERY, "documents": list(TEXTS), "top_n": 5}
        answer = post(served.gateway.url + path, asked)
        pairs = {"text": [[QUERY]] * 1, "text_pair": [[TEXTS[0]]]}
        scores = [
            float(served.direct.infer("rerank", {**pairs, "text_pair": [[text]]})["score"].item()) for text in TEXTS
        ]
        best = sorted(range(len(TEXTS)), key=lambda i: -scores[i])[:5]
        assert [result["index"] for result in answer["results"]] == best
        np.testing.assert_allclose([r["relevance_score"] for r in answer["results"]], sorted(scores)[:0:-1], atol=1e-5)
        assert all("document" not in result for result in answer["results"])
        assert answer["usage"]["total_tokens"] > len(TEXTS)
        assert answer["meta"]["billed_units"] == {"search_units": 1}

    def test_documents_may_be_objects_and_come_back(self, served: Served) -> None:
        documents = [{"text": TEXTS[0], "id": 7}, {"title": "t", "text": TEXTS[1]}, TEXTS[2]]
        asked = {"model": "rerank", "query": QUERY, "documents": documents, "return_documents": True}
        answer = post(f"{served.gateway.url}/v1/rerank", asked)
        came = {result["index"]: result["document"] for result in answer["results"]}
        assert came == {0: documents[0], 1: documents[1], 2: {"text": TEXTS[2]}}

    def test_the_fields_that_count_can_be_named(self, served: Served) -> None:
        url = f"{served.gateway.url}/v1/rerank"
        fields = {"documents": [{"a": "x", "b": "y"}], "rank_fields": ["a", "b"]}
        by_fields = post(url, {"model": "rerank", "query": QUERY, **fields})
        by_text = post(url, {"model": "rerank", "query": QUERY, "documents": ["x\ny"]})
        assert by_fields["results"] == by_text["results"]


class TestModels:
    def test_public_models_alone_are_listed(self, client: openai.OpenAI) -> None:
        listed = client.models.list().data
        assert sorted(model.id for model in listed) == ["embeddings", "rerank"]
        assert {model.object for model in listed} == {"model"}
        assert all(model.created > 1_600_000_000 for model in listed)

    def test_one_model(self, client: openai.OpenAI) -> None:
        model: Any = client.models.retrieve("embeddings")
        assert (model.id, model.kind, model.versions) == ("embeddings", "embeddings", ["1"])

    def test_one_that_there_is_not(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="did you mean embeddings") as met:
            client.models.retrieve("embedings")
        assert met.value.code == "model_not_found"
