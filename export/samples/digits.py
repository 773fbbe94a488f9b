"""Handwritten digits: a small convolutional network, trained here on scikit-learn's 1,797 real ones, as TorchScript.

The pictures come with scikit-learn: 8 x 8 pixels of 17 greys, light on dark, written by 13 people (the test part of
UCI's "Optical Recognition of Handwritten Digits"). A fifth is held out; the network never sees it, and the accuracy on
it, through the whole path of a PNG file, is in the report and the manifest.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conch.tensor_spec import Array, ModelSignature, TensorSpec
from export.options import ExportOptions
from export.python_parts import IMAGE, classify_part, image_part
from export.samples import Question
from export.source import PipelineParts, Source

if TYPE_CHECKING:
    from PIL import Image

SIZE = 8
CLASSES = tuple(str(digit) for digit in range(10))
PIXELS = TensorSpec("pixel_values", "FP32", (1, SIZE, SIZE))
LOGITS = TensorSpec("logits", "FP32", (10,))

# Averaging over boxes: a picture enlarged to any multiple of 8 comes back as it was, a photograph loses its noise.
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "channels": 1,
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 4,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.3],
    "image_std": [0.37],
}

SEED = 20240607
EPOCHS = 15


@dataclass(frozen=True)
class Digits:
    """Pictures uint8 [n, 8, 8], 0 to 255, and what they show, int64 [n]."""

    pictures: Array
    answers: Array


@functools.cache
def load_digits() -> tuple[Digits, Digits]:
    """scikit-learn's digits, those to train on and those held out; the same split each time."""
    from sklearn.datasets import load_digits as load

    data = load()
    pictures = np.rint(data.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(pictures))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    answers = data.target.astype(np.int64)
    return Digits(pictures[kept], answers[kept]), Digits(pictures[held], answers[held])


def to_png(picture: Array, size: int = 64) -> bytes:
    """A picture as a PNG file of size x size pixels, each of its own a square."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def read_pixels(files: Sequence[bytes]) -> Array:
    """Encoded files as the network takes them, FP32 [n, 1, 8, 8]: what PROCESSOR says, in a few lines of our own."""
    from PIL import Image

    return normalize([shrink(Image.open(io.BytesIO(file)).convert("L")) for file in files])


def shrink(picture: Image.Image) -> Array:
    """A grey picture as uint8 [8, 8]."""
    from PIL import Image

    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))


def normalize(pictures: Sequence[Array] | Array) -> Array:
    """Pictures uint8 [n, 8, 8] as FP32 [n, 1, 8, 8]."""
    scaled = np.stack(list(pictures)).astype(np.float32)[:, None] / 255
    normalized: Array = (scaled - 0.3) / 0.37
    return normalized.astype(np.float32)


def _questions() -> tuple[Question, ...]:
    """One held-out picture of each of five digits, in several sizes."""
    _, held = load_digits()
    found = []
    for digit, size in ((3, 64), (7, 64), (0, 8), (9, 200), (4, 96)):
        picture = held.pictures[int(np.flatnonzero(held.answers == digit)[0])]
        image = np.array([[to_png(picture, size)]], dtype=object)
        found.append(Question(f"a handwritten {digit}, {size} x {size} pixels", {"image": image}, expected=str(digit)))
    return tuple(found)


QUESTIONS: tuple[Question, ...] = _questions()


def options(repository: Path) -> ExportOptions:
    """TorchScript, served by the PyTorch backend."""
    return ExportOptions(name="digits", repository=repository, format="torchscript")


def source(options: ExportOptions) -> Source:
    """Train the network, which takes some ten seconds."""
    from export.from_huggingface_classes import class_answer
    from export.from_huggingface_torch import run, writer

    train, held = load_digits()
    module = train_network(train)
    files = [to_png(picture) for picture in held.pictures]
    accuracy = measure(module, files, held.answers)
    signature = ModelSignature((PIXELS,), (LOGITS,), options.max_batch_size)
    asked = [*files[:20], *(to_png(picture, SIZE) for picture in held.pictures[20:24])]
    samples = [{PIXELS.name: read_pixels(asked[start : start + 4])} for start in range(0, len(asked), 4)]

    def reference(request: Any) -> dict[str, Array]:
        (logits,) = run(module, {PIXELS.name: read_pixels(request["image"].ravel().tolist())})
        return class_answer(logits, CLASSES, "softmax", with_label=options.rules is None)

    pipeline = PipelineParts(
        inputs=(IMAGE,),
        outputs=("label", "score", "scores"),
        requests=tuple({"image": np.array([[file]], dtype=object)} for file in asked),
        preprocess=image_part(json.dumps(PROCESSOR, indent=2).encode(), PIXELS, options),
        postprocess=classify_part(CLASSES, "softmax", options),
        reference=reference,
    )
    return Source(
        provenance={
            "kind": "sample",
            "model": "digits: three convolutions and two linear layers",
            "data": "scikit-learn load_digits",
            "trained_on": len(train.answers),
            "held_out": len(held.answers),
            "held_out_accuracy": accuracy,
            **_versions(),
        },
        signature=signature,
        reference=lambda tensors: {LOGITS.name: run(module, tensors)[0]},
        samples=samples,
        write=writer(module, samples[0], signature),
        pipeline=pipeline,
        infer_arguments="--image digit.png",
        notes=(f"{accuracy:.1%} of {len(held.answers)} held-out digits are read right",),
    )


def measure(module: Any, files: Sequence[bytes], answers: Array) -> float:
    """The share of encoded files that are read right."""
    from export.from_huggingface_torch import run

    (logits,) = run(module, {PIXELS.name: read_pixels(files)})
    return float((logits.argmax(axis=1) == answers).mean())


def train_network(digits: Digits) -> Any:
    """A torch module: pixel_values FP32 [b, 1, 8, 8] -> logits [b, 10]. Seeded; leaves torch's own generator alone."""
    import torch
    from torch import nn

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        # Layers this small take longer on two threads than on one, and add in the same order on any machine.
        torch.set_num_threads(1)
        network = _network(nn)
        pictures = torch.from_numpy(normalize(_variants(digits)))
        answers = torch.from_numpy(digits.answers)
        variants = len(pictures) // len(answers)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        batches = -(-len(answers) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * batches)
        loss = nn.CrossEntropyLoss(label_smoothing=0.05)
        network.train()
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(answers)).split(64):
                chosen = batch + len(answers) * torch.randint(variants, (len(batch),))
                optimizer.zero_grad()
                loss(network(_shift(pictures[chosen])), answers[batch]).backward()
                optimizer.step()
                schedule.step()
    torch.set_num_threads(threads)
    return network.eval()


def _network(nn: Any) -> Any:
    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
                *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
                *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10)),
            )

        def forward(self, pixel_values: Any) -> Any:
            return self.layers(pixel_values)

    return Network()


def _variants(digits: Digits) -> Array:
    """The pictures, and each again as it comes back from being enlarged with another filter, uint8 [k * n, 8, 8].

    People enlarge pictures with what they have; the network is to read all of those.
    """
    from PIL import Image

    found = [digits.pictures]
    for size, kind in ((28, Image.Resampling.BILINEAR), (64, Image.Resampling.BICUBIC), (50, Image.Resampling.NEAREST)):
        enlarged = (Image.fromarray(picture).resize((size, size), kind) for picture in digits.pictures)
        found.append(np.stack([shrink(picture) for picture in enlarged]))
    return np.concatenate(found)


def _shift(pictures: Any) -> Any:
    """A batch [b, 1, 8, 8], moved by up to a pixel and with a little noise."""
    import torch

    background = (0 - 0.3) / 0.37
    padded = torch.nn.functional.pad(pictures, (1, 1, 1, 1), value=background)
    down, across = torch.randint(3, (2,)).tolist()
    moved = padded[:, :, down : down + SIZE, across : across + SIZE]
    return moved + 0.1 * torch.randn_like(moved)


def _versions() -> dict[str, str]:
    import sklearn
    import torch

    return {"torch": torch.__version__, "scikit-learn": sklearn.__version__}
