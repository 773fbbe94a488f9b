"""FastAPI that calls transformers' generate in the handler: fp32, greedy, the text when it is whole.

CONCH_BENCH holds {"checkpoint", "threads", "in_threads"}: torch's threads, and whether handlers run in FastAPI's
thread pool, many at a time, or one after the other.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from fastapi import FastAPI
from transformers import AutoModelForCausalLM, AutoTokenizer

SETTINGS: dict[str, Any] = json.loads(os.environ["CONCH_BENCH"])

app = FastAPI()
torch.set_num_threads(SETTINGS["threads"])
tokenizer = AutoTokenizer.from_pretrained(SETTINGS["checkpoint"])
model = AutoModelForCausalLM.from_pretrained(SETTINGS["checkpoint"]).eval()


def answer(payload: dict[str, Any]) -> dict[str, Any]:
    """{"prompt", "max_tokens"} -> {"text"}."""
    ids = tokenizer(payload["prompt"], return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(**ids, max_new_tokens=payload["max_tokens"], do_sample=False, pad_token_id=0)
    return {"text": tokenizer.decode(made[0, ids["input_ids"].shape[1] :])}


if SETTINGS["in_threads"]:

    @app.post("/generate")
    def generate_in_a_thread(payload: dict[str, Any]) -> dict[str, Any]:
        """One text, beside others."""
        return answer(payload)

else:

    @app.post("/generate")
    async def generate(payload: dict[str, Any]) -> dict[str, Any]:
        """One text, while nothing else happens."""
        return answer(payload)
