"""FastAPI in front of ONNX Runtime, at its best.

Async handlers that call the session in the event loop, a worker process for each core, one thread a session, uvloop and
httptools. The response is declared, so that FastAPI writes it in compiled code: a handler that returns a dict, as
FastAPI's tutorial has it, serves about a sixth less. A picture comes as the body itself, with nothing around it.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, create_model

from perf.contenders.handler import SETTINGS, open_handler

handler = open_handler()
app = FastAPI()
Row = create_model("Row", **dict.fromkeys(SETTINGS.get("columns", ()), (float, ...)))  # type: ignore[call-overload]


class Sentence(BaseModel):
    """A text's body."""

    text: str


class Embedding(BaseModel):
    """What a text is answered with: d numbers."""

    embedding: list[float]


class Classes(BaseModel):
    """What a row or a picture is answered with."""

    label: str
    score: float
    scores: list[float]


async def embed(question: Sentence) -> Embedding:
    """One text in, its embedding out."""
    return Embedding.model_construct(embedding=handler.answer({"text": question.text})["embedding"])


async def judge(row: Any) -> Classes:
    """One row in, its class out."""
    return Classes.model_construct(**handler.answer(vars(row)))


async def recognize(request: Request) -> Classes:
    """One encoded picture in, its class out."""
    return Classes.model_construct(**handler.answer(await request.body()))


# FastAPI reads the annotations, and this class is made here.
judge.__annotations__ = {"row": Row, "return": Classes}
answers: dict[str, Any] = {"text": embed, "tabular": judge, "image": recognize}
app.post("/infer")(answers[SETTINGS["workload"]])


@app.get("/ready")
async def ready() -> str:
    """Answers when the worker serves."""
    return "ready"
