"""`conch infer NAME --prompt`: generated text on stdout, as it comes or whole; what it cost on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from clients.client import Client
    from clients.generation import Generated, Piece

STDIN = "-"


def sampling_options(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; a value is JSON, or else the text as it stands. A name given twice is a list of its values."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--sampling")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options[name] = value if name not in options else [*_listed(options[name]), value]
    return options


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def answer_prompt(
    client: Client,
    name: str,
    prompt: str,
    sampling: Mapping[str, Any],
    version: int | None,
    *,
    chat: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """Ask, and print. ``chat`` makes the prompt a user's message. Raises: ClientError."""
    from clients.generation import whole
    from conch.terminal import console, print_json

    text = sys.stdin.read() if prompt == STDIN else prompt
    if not stream:
        generated = (
            client.chat(name, _messages(text), version=version, **sampling)
            if chat
            else client.generate(name, text, version=version, **sampling)
        )
        if as_json:
            print_json({"model": name, "answers": [_document(generated)]})
            return
        click.echo(generated.text)
    else:
        pieces = (
            client.chat_stream(name, _messages(text), version=version, **sampling)
            if chat
            else client.generate_stream(name, text, version=version, **sampling)
        )
        with closing(pieces):
            generated = whole(_printed(pieces))
        click.echo()
    console.print(_cost(generated), markup=False)


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _printed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces, each printed as it passes."""
    for piece in pieces:
        click.echo(piece.text, nl=False)
        yield piece


def _document(generated: Generated) -> dict[str, Any]:
    return dataclasses.asdict(generated)


def _cost(generated: Generated) -> str:
    """One line for whoever looks on."""
    parts = [f"{generated.model}, version {generated.version}", f"ended by {generated.finish_reason or 'the model'}"]
    if generated.output_tokens is not None:
        parts.append(f"{generated.input_tokens or 0} tokens in, {generated.output_tokens} out")
    return "; ".join(parts)
