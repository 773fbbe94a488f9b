"""What every server of the comparison does with a request, so that they differ in serving alone.

One thread a session, no padding for a single text, and the arithmetic in numpy. A payload is what came in the body:
a dictionary for a text or a row, the file's bytes for a picture. Files and settings come in through CONCH_BENCH, a JSON
object, since each worker process imports its server afresh.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

Answer = dict[str, Any]

SETTINGS: dict[str, Any] = json.loads(os.environ.get("CONCH_BENCH", "{}"))


class Session:
    """The graph, on one thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, SETTINGS["graph_level"])
        self._session = onnxruntime.InferenceSession(SETTINGS["model"], options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        self.outputs = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """All outputs, each [batch, ...]."""
        outputs: list[Any] = self._session.run(self.outputs, dict(feed))
        return outputs


class Text:
    """{"text": ...} -> {"embedding": d numbers}."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._session = Session()
        self._tokenizer = Tokenizer.from_file(SETTINGS["tokenizer"])
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(SETTINGS["max_length"])

    def answer(self, payload: Mapping[str, Any]) -> Answer:
        """One text by itself."""
        return {"embedding": self.embed([payload["text"]])[0].tolist()}

    def answer_batch(self, payloads: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Several in one run of the graph, padded to the longest."""
        return [{"embedding": row.tolist()} for row in self.embed([payload["text"] for payload in payloads])]

    def embed(self, texts: Sequence[str]) -> Any:
        """FP32 [texts, d]."""
        encodings = self._tokenizer.encode_batch(list(texts)) if len(texts) > 1 else [self._tokenizer.encode(texts[0])]
        longest = max(len(encoding.ids) for encoding in encodings)
        feed = {name: np.zeros((len(texts), longest), np.int64) for name in self._session.inputs}
        for row, encoding in enumerate(encodings):
            columns = {
                "input_ids": encoding.ids,
                "attention_mask": encoding.attention_mask,
                "token_type_ids": encoding.type_ids,
            }
            for name in feed:
                feed[name][row, : len(encoding.ids)] = columns[name]
        return self._session.run(feed)[0]


class Tabular:
    """A number for each column -> {"label", "score", "scores"}."""

    def __init__(self) -> None:
        self._session = Session()

    def answer(self, payload: Mapping[str, Any]) -> Answer:
        """One row by itself."""
        return self.answer_batch([payload])[0]

    def answer_batch(self, payloads: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Several rows in one run."""
        feed = {name: np.array([[payload[name]] for payload in payloads], np.float32) for name in self._session.inputs}
        found = dict(zip(self._session.outputs, self._session.run(feed), strict=True))
        return [
            {"label": str(label), "score": score, "scores": scores}
            for label, score, scores in zip(
                found["label"].ravel(), found["score"].ravel().tolist(), found["scores"].tolist(), strict=True
            )
        ]


class Picture:
    """An encoded file -> {"label", "score", "scores"}: decode, shrink, normalize, run, softmax."""

    def __init__(self) -> None:
        from PIL import Image

        self._image = Image
        self._session = Session()
        self._labels = SETTINGS["labels"]
        self._size = tuple(SETTINGS["size"])
        values = np.arange(256, dtype=np.float64) / 255
        # A channel has 256 values: rescaling and normalizing is one look-up.
        self._table = ((values - SETTINGS["mean"]) / SETTINGS["std"]).astype(np.float32)

    def answer(self, payload: bytes) -> Answer:
        """One picture by itself."""
        return self.answer_batch([payload])[0]

    def answer_batch(self, payloads: Sequence[bytes]) -> list[Answer]:
        """Several pictures in one run."""
        pixels = np.stack([self._read(payload) for payload in payloads])[:, None]  # [n, 1, height, width]
        (logits,) = self._session.run({self._session.inputs[0]: pixels})
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        return [
            {"label": self._labels[int(row.argmax())], "score": float(row.max()), "scores": row.tolist()}
            for row in scores
        ]

    def _read(self, payload: bytes) -> Any:
        picture = self._image.open(io.BytesIO(payload), formats=("JPEG", "PNG", "WEBP")).convert("L")
        return self._table[np.asarray(picture.resize(self._size, self._image.Resampling.BOX))]


HANDLERS: dict[str, type[Text] | type[Tabular] | type[Picture]] = {"text": Text, "tabular": Tabular, "image": Picture}


def open_handler() -> Any:
    """The handler of the workload that CONCH_BENCH names."""
    return HANDLERS[SETTINGS["workload"]]()


def from_json(body: Mapping[str, Any]) -> Any:
    """The payload of a JSON body; a picture is in it as base64."""
    return base64.b64decode(body["image"]) if SETTINGS["workload"] == "image" else body
