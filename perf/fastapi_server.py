"""What people run when they have no Triton: FastAPI in front of ONNX Runtime.

Async handlers that call the session in the event loop, a worker process for each core, one thread a session, no
padding. ``/embed-declared`` declares its response, which FastAPI then writes in compiled code: the faster way, and the
one to beat. ``/embed`` answers with a dict, as FastAPI's tutorial writes it. Started by `perf.compare_servers`; the
files come in through the environment, since each worker imports this module afresh.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

MODEL = os.environ["CONCH_BENCH_MODEL"]
TOKENIZER = os.environ["CONCH_BENCH_TOKENIZER"]
OUTPUT = os.environ["CONCH_BENCH_OUTPUT"]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
names = {tensor.name for tensor in session.get_inputs()}
tokenizer = Tokenizer.from_file(TOKENIZER)
tokenizer.no_padding()
tokenizer.enable_truncation(256)
app = FastAPI()


class Question(BaseModel):
    """The request's body."""

    text: str


class Answer(BaseModel):
    """The response's body; ``embedding`` is a list of d numbers."""

    embedding: list[float]


def embed_text(text: str) -> list[float]:
    """The embedding of one text, d numbers."""
    encoding = tokenizer.encode(text)
    feed = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
    arrays = {name: np.array([values], dtype=np.int64) for name, values in feed.items() if name in names}  # [1, tokens]
    (embedding,) = session.run([OUTPUT], arrays)
    vector: list[float] = embedding[0].tolist()
    return vector


@app.post("/embed")
async def embed(question: Question):  # type: ignore[no-untyped-def]  # a return type would declare the response
    """One text in, its embedding out."""
    return {"embedding": embed_text(question.text)}


@app.post("/embed-declared")
async def embed_declared(question: Question) -> Answer:
    """The same, with the response declared."""
    return Answer(embedding=embed_text(question.text))


@app.get("/ready")
async def ready() -> str:
    """Answers when the worker serves."""
    return "ready"
