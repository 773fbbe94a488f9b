"""Write perf/inputs/: real inputs for the samples, in perf_analyzer's form. Run it when a sample's tensors change.

    python -m perf.analyzer.sample_inputs

Messages for spam and customers for churn are made as the samples make theirs, from another seed; the pictures for
digits are held-out ones; the texts for embeddings have 5 to 40 words, as sentences do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conch.tensor_spec import TensorSpec
from perf.analyzer.inputs import SHIPPED, tensor

COUNT = 64
SEED = 20241018
SHORTEST, LONGEST = 5, 40  # words
CLAUSES = (
    "the ferry leaves at dawn",
    "nobody at the front desk could say when the parcel would arrive",
    "our train was cancelled after the storm closed the bridge",
    "the new heating keeps the whole house warm for half the price",
    "she planted tomatoes along the southern wall",
    "the museum is free on the first Sunday of every month",
    "quarterly revenue grew by four percent while costs fell",
    "the battery lasts two days if the screen is dimmed",
    "he asked for a refund and was told to wait three weeks",
    "a kitten slept in the sun on the window sill",
    "the committee will vote on the budget before the holidays",
    "this soup needs more salt and a little lemon",
    "most of the audience had left before the second half began",
    "researchers found traces of water in the samples from the crater",
    "the printer on the third floor is out of paper again",
    "please send the signed contract to the office in Seoul",
    "children learn a second language faster when they sing in it",
    "the mechanic replaced the brakes and checked the tyres",
    "rain is expected in the north with snow above a thousand metres",
    "the library extended its opening hours during the exams",
)


def texts(count: int = COUNT) -> list[str]:
    """Clauses in a row, 5 to 40 words, their lengths spread evenly; the same in every run."""
    chance = random.Random(SEED)
    found = []
    for _ in range(count):
        due = chance.randint(SHORTEST, LONGEST)
        words = ", and ".join(chance.sample(CLAUSES, 8)).split(" ")[:due]
        found.append(" ".join(words).capitalize().rstrip(","))
    return found


def messages(count: int = COUNT) -> list[str]:
    """Short messages of all kinds, English and Korean."""
    from export.samples.spam_messages import messages as made

    return [message.text for message in random.Random(SEED).sample(made(seed=SEED), count)]


def customers(count: int = COUNT) -> list[dict[str, float]]:
    """Customers as rows of numbers."""
    from export.samples.churn import COLUMNS
    from export.samples.churn import customers as made

    frame = made(count=count, seed=SEED)
    return [{name: float(row[name]) for name in COLUMNS} for _, row in frame.iterrows()]


def pictures(count: int = COUNT) -> list[bytes]:
    """Handwritten digits as PNG files, of the sizes that people send."""
    from export.samples.digits import load_digits, to_png

    _, held = load_digits()
    return [to_png(held.pictures[index], (8, 32, 64, 96)[index % 4]) for index in range(count)]


def strings(name: str, values: Sequence[Any]) -> list[Mapping[str, Any]]:
    """One string input, an item each."""
    spec = TensorSpec(name, "BYTES", (1,))
    return [{name: tensor(spec, np.array([value], dtype=object))} for value in values]


def main() -> None:
    """Write all four files."""
    rows = [{n: {"content": [v], "shape": [1]} for n, v in row.items()} for row in customers()]
    found: dict[str, Sequence[Mapping[str, Any]]] = {
        "embeddings": strings("text", texts()),
        "spam": strings("text", messages()),
        "churn": rows,
        "digits": strings("image", pictures()),
    }
    SHIPPED.mkdir(exist_ok=True)
    for name, steps in found.items():
        lines = ",\n".join(json.dumps(step, ensure_ascii=False) for step in steps)
        (SHIPPED / f"{name}.json").write_text(f'{{"data": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
