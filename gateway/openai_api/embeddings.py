"""POST /v1/embeddings, for any model with `text` STRING [1] -> `embedding` FP32 [d].

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from conch.tensor_spec import Array
from gateway.caller import admitted, gateway_of
from gateway.errors import GatewayError
from gateway.numbers import numbers
from gateway.openai_api.batches import ask_in_batches
from gateway.openai_api.bodies import EmbeddingsBody
from gateway.openai_api.reading import post_route, read_body
from gateway.openai_api.sampling import invalid
from gateway.openai_api.served import require_kind
from gateway.openai_api.vocabulary import count_tokens
from gateway.request_info import request_info

# Up to so many numbers are written between two other requests; more, beside them.
_AT_ONCE_NUMBERS = 20_000

router = APIRouter(tags=["openai"])


async def embeddings(request: Request) -> Response:
    """One vector a text."""
    caller = await admitted(request)
    info = await request_info(request)
    body = await read_body(request, EmbeddingsBody)
    texts = _texts(body)
    gateway = gateway_of(request)
    served = await gateway.door.model(caller, body.model, request=info)
    require_kind(served, "embeddings", "/v1/embeddings")
    if body.dimensions is not None:
        _check_dimensions(body.dimensions, served.signature.output("embedding").dims[-1])
    encoded = {"text": [text.encode("utf-8") for text in texts]}
    vectors = await ask_in_batches(gateway.door, caller, body.model, served, encoded, "embedding", info)
    tokens = await count_tokens(texts, served, gateway.settings.repository)
    info.record.input_tokens += tokens
    gateway.door.charge_soon(caller, body.model, input_tokens=tokens)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        got = "numbers that are none" if vectors.ndim == 2 else f"an embedding of shape {list(vectors.shape[1:])}"
        raise GatewayError(f"model {body.model} gives no vector", status=502, code="model_failed", got=got)
    if body.dimensions is not None:
        _check_dimensions(body.dimensions, vectors.shape[1])  # where the config leaves them open
        vectors = shortened(vectors, body.dimensions)
    write = base64_vectors if body.encoding_format == "base64" else numbers
    written = write(vectors) if vectors.size <= _AT_ONCE_NUMBERS else await asyncio.to_thread(write, vectors)
    data = ",".join(f'{{"object":"embedding","index":{i},"embedding":{text}}}' for i, text in enumerate(written))
    usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
    document = f'{{"object":"list","data":[{data}],"model":{json.dumps(body.model)},"usage":{usage}}}'
    return Response(document, media_type="application/json")


def shortened(vectors: Array, dimensions: int) -> Array:
    """The first dimensions of each vector, of length 1 again: what OpenAI's own models do.

    It is a good embedding only where the model was trained for it (Matryoshka); any other loses some precision.
    """
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def base64_vectors(vectors: Array) -> list[str]:
    """Each vector as JSON: a string with its little-endian float32 in base64."""
    return [f'"{base64.b64encode(row.tobytes()).decode()}"' for row in np.ascontiguousarray(vectors, "<f4")]


def _texts(body: EmbeddingsBody) -> list[str]:
    """The texts. Raises: GatewayError 400 for tokens and for empty ones."""
    if isinstance(body.input, str) and body.input:
        return [body.input]
    given = [body.input] if isinstance(body.input, str) else body.input
    if not all(isinstance(text, str) for text in given):
        raise GatewayError(
            "the input cannot be given as tokens: the model reads text, and has a vocabulary of its own",
            status=400,
            code="tokens_not_supported",
            param="input",
            fix="send text; for LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)",
        )
    texts = [text for text in given if isinstance(text, str)]
    if not all(texts):
        raise invalid("input", "'input' cannot be an empty string")
    return texts


def _check_dimensions(asked: int, there_are: int) -> None:
    if there_are > 0 and asked > there_are:
        raise invalid("dimensions", f"'dimensions' is {asked}; the model's vectors have {there_are}")


post_route(router, "/v1/embeddings", embeddings, EmbeddingsBody)
