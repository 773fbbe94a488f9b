"""Real inputs to compare a Hugging Face model and its export on: the user's own, or ours.

Ours are written for this: short and long, English and Korean, so that lengths and scripts differ. A user's are better,
for only they look like what the model will be asked: ``--samples`` takes texts (.txt, one a line; .jsonl or .csv with
the columns ``text`` and, for pairs, ``text_pair``) or a folder of images.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from conch.errors import ExportError
from conch.tensor_spec import Array

# Enough to see a difference, few enough to run in seconds.
MOST = 64

TEXTS = (
    "ok",
    "Thank you!",
    "배송이 너무 늦어요.",
    "The parcel arrived on Monday, but the box was open and one cup was broken.",
    "Where can I find the invoice for my last order?",
    "서울에서 부산까지 기차로 두 시간 반쯤 걸립니다.",
    "Maria Jansen moved from Rotterdam to Lisbon in 2019 and works for the port authority there.",
    "환불을 요청했는데 아직 답장을 받지 못했습니다. 언제쯤 처리되는지 알려 주세요.",
    "Café, naïve, 12.50 €, e-mail: someone@example.org, #42 - does the tokenizer mind?",
    "The committee met twice last week, read the report from end to end, asked the authors for the missing figures, "
    "and then put the decision off until the spring, when the new numbers will be in.",
    "김민수 박사는 지난해 대전의 연구소에서 새로운 배터리를 발표했고, 올해부터는 그 결과를 바탕으로 여러 회사와 함께 "
    "전기 버스에 들어갈 제품을 만들고 있습니다.",
    "It was not a bad film, only a long one: the first hour says what the next two say again.",
)

PAIRS = (
    ("opening hours", "We are open from nine to five, Monday to Friday."),
    (
        "How do I reset my password?",
        "Click on 'forgot password' below the login form, and follow the link in the mail.",
    ),
    ("How do I reset my password?", "Our office is on the third floor."),
    ("배송 기간", "주문하신 물건은 보통 이틀 안에 도착합니다."),
    ("capital of Portugal", "Lisbon, at the mouth of the Tagus, is the capital and the largest city of Portugal."),
    (
        "Why is the sky blue?",
        "Air scatters short waves of light more than long ones, so from every part of the sky it is mostly blue light "
        "that reaches the eye; at sunset the way through the air is long, and only red and orange are left.",
    ),
    ("환불", "구매한 날로부터 14일 안에는 이유를 묻지 않고 돈을 돌려 드립니다. 영수증을 꼭 보관해 주세요."),
    ("blue", "x"),
)

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_texts(path: Path | None) -> tuple[str, ...]:
    """The user's texts, or ours when there is no file. Raises: ExportError."""
    return TEXTS if path is None else tuple(row[0] for row in _rows(path, ("text",)))


def read_pairs(path: Path | None) -> tuple[tuple[str, str], ...]:
    """The user's pairs of texts, or ours when there is no file. Raises: ExportError."""
    return PAIRS if path is None else tuple((row[0], row[1]) for row in _rows(path, ("text", "text_pair")))


def read_images(path: Path | None) -> tuple[bytes, ...]:
    """The user's encoded images, or ours when there is no folder. Raises: ExportError."""
    if path is None:
        return tuple(_drawn_images())
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES) if path.is_dir() else []
    if not files:
        raise ExportError(
            "--samples holds no images",
            where=path,
            got="no folder" if not path.is_dir() else "no image files",
            expected="a folder with " + ", ".join(_IMAGE_SUFFIXES) + " files",
        )
    return tuple(p.read_bytes() for p in files[:MOST])


def _rows(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """The first lines of a sample file, the named columns of each. Raises: ExportError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            "the samples cannot be read", where=path, got=error, expected="a text file in UTF-8"
        ) from error
    try:
        rows = [[row[column] for column in columns] for row in _parse(path, text, columns)]
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            "the samples do not have the columns that the task needs",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected=" and ".join(columns) + " in every row",
        ) from error
    if any(not isinstance(value, str) for row in rows for value in row):
        raise ExportError("the samples are not all text", where=path, expected=" and ".join(columns) + " as strings")
    if not rows:
        raise ExportError("the samples are empty", where=path, expected="at least one " + " and ".join(columns))
    return rows[:MOST]


def _parse(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    suffix = path.suffix.lower()
    if suffix == ".txt" and len(columns) == 1:
        return ({"text": line} for line in text.splitlines() if line.strip())
    if suffix == ".jsonl":
        return (json.loads(line) for line in text.splitlines() if line.strip())
    if suffix == ".csv":
        return csv.DictReader(io.StringIO(text))
    raise ExportError(
        "conch cannot tell what is in the samples",
        where=path,
        got=suffix or "no suffix",
        expected=".jsonl or .csv" if len(columns) > 1 else ".txt, .jsonl or .csv",
    )


def _drawn_images() -> Iterator[bytes]:
    """Six drawings: sizes, modes and formats that uploads have, smooth and detailed, wide and tall."""
    from PIL import Image, ImageDraw

    for index, (width, height) in enumerate(((64, 64), (320, 240), (200, 500), (640, 360), (33, 47), (256, 256))):
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        layers = np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8)
        image = Image.fromarray(layers)
        draw = ImageDraw.Draw(image)
        draw.ellipse((width // 4, height // 4, width // 2, height // 2), fill=(200, 30 * index, 40))
        draw.rectangle((width // 2, height // 2, width - width // 8, height - height // 8), fill=(20, 90, 40 * index))
        draw.line((0, height, width, 0), fill=(255, 255, 255), width=max(1, width // 40))
        buffer = io.BytesIO()
        # PNG and WebP keep every pixel; JPEG is what most uploads are.
        image.convert("L" if index == 3 else "RGB").save(buffer, ("PNG", "JPEG", "WEBP")[index % 3], lossless=True)
        yield buffer.getvalue()


def strings(*values: str | bytes) -> Array:
    """A STRING [1] tensor for each value, as one batch: an object array [n, 1]."""
    return np.array([[value] for value in values], dtype=object)
