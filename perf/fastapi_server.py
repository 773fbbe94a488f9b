"""What people run when they have no Triton: FastAPI in front of ONNX Runtime.

Async handlers that call the session in the event loop, a worker process for each core, one thread a session, no
padding. The response is declared, so that FastAPI writes it in compiled code: a handler that returns a dict, as
FastAPI's tutorial has it, serves about a sixth less. Started by `perf.compare_servers`; files and settings come in
through the environment, since each worker imports this module afresh.
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
GRAPH_LEVEL = os.environ["CONCH_BENCH_GRAPH_LEVEL"]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, GRAPH_LEVEL)
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


@app.post("/embed")
async def embed(question: Question) -> Answer:
    """One text in, its embedding out."""
    encoding = tokenizer.encode(question.text)
    feed = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
    arrays = {name: np.array([values], dtype=np.int64) for name, values in feed.items() if name in names}  # [1, tokens]
    (embedding,) = session.run([OUTPUT], arrays)
    return Answer(embedding=embedding[0].tolist())


@app.get("/ready")
async def ready() -> str:
    """Answers when the worker serves."""
    return "ready"
