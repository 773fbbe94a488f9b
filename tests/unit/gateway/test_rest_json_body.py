"""Bodies: what is read, what is refused and how, what is written."""

from __future__ import annotations

import pytest

from gateway.errors import GatewayError
from gateway.rest.json_body import read_object, write_json


@pytest.mark.parametrize("body", [b'{"a": 1e400}', '{"a": "안녕 👋"}'.encode(), b'{"a": "\\ud83d\\udc4b"}'])
def test_json_is_read(body: bytes) -> None:
    assert list(read_object(body)) == ["a"]


@pytest.mark.parametrize(
    ("body", "what", "got"),
    [
        (b"", "the body is no JSON", "an empty body"),
        (b"{", "the body is no JSON", "line 1, column 2"),
        (b'{"a": NaN}', "the body is no JSON", "NaN"),
        (b'{"a": -Infinity}', "the body is no JSON", "-Infinity"),
        (b'{"a": "\xff"}', "the body is not UTF-8", "byte 0xff at position 7"),
        ('{"a": 1}'.encode("utf-16"), "the body is not UTF-8", "byte 0xff at position 0"),
        (b'{"a": "\\ud83d"}', "the body is no valid Unicode", "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "the body is no valid Unicode", "half of a surrogate pair"),
        (b'{"a": ' + b"1" * 5000 + b"}", "the body cannot be read", "too many digits"),
        (b"[" * 200_000, "the body cannot be read", "nested too deep"),
        (b"[1]", "the body is no JSON object", "a list"),
        (b'"a"', "the body is no JSON object", "text: 'a'"),
        (b"null", "the body is no JSON object", "null"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, what: str, got: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read_object(body)
    assert (caught.value.status, caught.value.what) == (400, what)
    assert got in str(caught.value.got)


def test_json_is_written_compactly_with_null_for_what_json_lacks() -> None:
    document = {"a": [float("nan"), 1.5, {"b": float("inf")}], "c": "안"}
    assert write_json(document) == '{"a":[null,1.5,{"b":null}],"c":"안"}'.encode()
