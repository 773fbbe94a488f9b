"""FastAPI with the framework called in the handler: the model as its author left it, fp32, no ONNX.

Text: transformers on torch, mean pooling, as sentence-transformers does it. Tabular: scikit-learn's pipeline. Image:
torch. Handlers are plain functions, which FastAPI runs in threads. CONCH_BENCH's `threads` are torch's.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from fastapi import FastAPI, Request

from perf.contenders.handler import SETTINGS

app = FastAPI()


def open_text() -> Any:
    """{"text": ...} -> {"embedding"}, a mean over tokens of length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(SETTINGS["threads"])
    tokenizer = AutoTokenizer.from_pretrained(SETTINGS["checkpoint"])
    model = AutoModel.from_pretrained(SETTINGS["checkpoint"]).eval()

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            encoded = tokenizer(payload["text"], truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**encoded).last_hidden_state  # [1, tokens, d]
            mean = hidden[0].mean(dim=0)  # one text: no padding to leave out
            return {"embedding": torch.nn.functional.normalize(mean, dim=0).tolist()}

    return answer


def open_tabular() -> Any:
    """A row -> {"label", "score", "scores"}."""
    import pandas

    with open(SETTINGS["checkpoint"], "rb") as file:
        model = pickle.load(file)

    def answer(payload: dict[str, Any]) -> dict[str, Any]:
        scores = model.predict_proba(pandas.DataFrame([payload], columns=SETTINGS["columns"]))[0]
        best = int(np.argmax(scores))
        return {"label": str(model.classes_[best]), "score": float(scores[best]), "scores": scores.tolist()}

    return answer


def open_image() -> Any:
    """An encoded file -> {"label", "score", "scores"}."""
    import torch
    from PIL import Image

    torch.set_num_threads(SETTINGS["threads"])
    model = torch.jit.load(SETTINGS["checkpoint"]).eval()

    def answer(payload: bytes) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(payload)).convert("L").resize(tuple(SETTINGS["size"]), Image.Resampling.BOX)
        pixels = (torch.from_numpy(np.array(picture)).float() / 255 - SETTINGS["mean"]) / SETTINGS["std"]
        with torch.inference_mode():
            output = model(pixels[None, None])
            scores = torch.softmax(output[0] if output.ndim == 2 else output[0][0], dim=0)
        best = int(scores.argmax())
        return {"label": SETTINGS["labels"][best], "score": float(scores[best]), "scores": scores.tolist()}

    return answer


answer = {"text": open_text, "tabular": open_tabular, "image": open_image}[SETTINGS["workload"]]()

if SETTINGS["workload"] == "image":

    @app.post("/infer")
    async def infer_file(request: Request) -> dict[str, Any]:
        """One picture, the file as the body."""
        from fastapi.concurrency import run_in_threadpool

        return await run_in_threadpool(answer, await request.body())

else:

    @app.post("/infer")
    def infer(payload: dict[str, Any]) -> dict[str, Any]:
        """One text or row."""
        result: dict[str, Any] = answer(payload)
        return result


@app.get("/ready")
async def ready() -> str:
    """Answers when the worker serves."""
    return "ready"
