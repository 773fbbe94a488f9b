"""Plain HTTP to a gateway, as curl would do it; and keys put into a file."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.security import keys
from gateway.security.keys import Key
from gateway.security.keys_file import update


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.document["error"]["code"])


def lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def ask(
    gateway: Any,
    path: str,
    document: Any = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    context: ssl.SSLContext | None = None,
) -> Reply:
    sent = dict(headers or {})
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(gateway.url + path, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return Reply(answer.status, lowered(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, lowered(error.headers), error.read())


def predict(gateway: Any, model: str, key: str | None = None, **options: Any) -> Reply:
    return ask(gateway, f"/predict/{model}", {"x": 1.0}, key=key, **options)


def add_key(path: Path, name: str, **fields: Any) -> str:
    """Put a key into a keys file; returns its secret."""
    secret = keys.new_secret(name)
    update(path, lambda before: (*before, Key(name, keys.digest(secret), **fields)))
    return secret
