from pathlib import Path

import pytest

from conch.errors import ExportError
from export.from_huggingface_samples import MOST, PAIRS, TEXTS, read_images, read_pairs, read_texts


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "one\n\n둘\n"),
        ("a.jsonl", '{"text": "one", "id": 1}\n\n{"text": "둘"}\n'),
        ("a.csv", "id,text\n1,one\n2,둘\n"),
        ("a.csv", "\ufefftext\none\n둘\n"),
    ],
)
def test_texts_are_read(tmp_path: Path, name: str, text: str) -> None:
    assert read_texts(write(tmp_path, name, text)) == ("one", "둘")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"text": "q", "text_pair": "a"}\n'),
        ("a.csv", "text_pair,text\na,q\n"),
    ],
)
def test_pairs_are_read(tmp_path: Path, name: str, text: str) -> None:
    assert read_pairs(write(tmp_path, name, text)) == (("q", "a"),)


def test_a_long_file_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "".join(f"text {i}\n" for i in range(1000)))
    assert len(read_texts(path)) == MOST


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.txt", "\n", "empty"),
        ("a.jsonl", '{"words": "one"}\n', "columns"),
        ("a.jsonl", "[1]\n", "columns"),
        ("a.jsonl", "{\n", "columns"),
        ("a.jsonl", '{"text": 1}\n', "not all text"),
        ("a.csv", "words\none\n", "columns"),
        ("a.xlsx", "", "cannot tell"),
    ],
)
def test_a_sample_file_that_is_wrong_is_told(tmp_path: Path, name: str, text: str, what: str) -> None:
    with pytest.raises(ExportError, match=what) as caught:
        read_texts(write(tmp_path, name, text))
    assert name in str(caught.value.where)


def test_plain_lines_hold_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot tell"):
        read_pairs(write(tmp_path, "a.txt", "one\n"))


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExportError, match="cannot be read"):
        read_texts(tmp_path / "a.txt")


def test_a_folder_of_images_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_images(tmp_path) == (b"a.jpg", b"b.PNG")


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no images"):
        read_images(tmp_path)


def test_our_own_samples_differ_in_length_and_script() -> None:
    assert len({len(text.split()) for text in TEXTS}) >= 8
    assert any("가" <= character <= "힣" for text in TEXTS for character in text)
    assert len({len(a) + len(b) for a, b in PAIRS}) == len(PAIRS)


def test_our_own_images_can_be_opened() -> None:
    import io

    from PIL import Image

    images = [Image.open(io.BytesIO(file)) for file in read_images(None)]
    assert {image.format for image in images} == {"PNG", "JPEG", "WEBP"}
    assert {image.mode for image in images} == {"RGB", "L"}
    assert len({image.size for image in images}) == len(images)
