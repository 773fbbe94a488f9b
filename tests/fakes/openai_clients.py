"""The official openai clients, pointed at a gateway."""

from __future__ import annotations

from typing import Any

import openai


def sync_client(url: str, **options: Any) -> openai.OpenAI:
    """``url`` is the gateway's; nothing is tried again unless asked for, so that each failure is seen."""
    return openai.OpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 30.0, **options})


def async_client(url: str, **options: Any) -> openai.AsyncOpenAI:
    """As `sync_client`."""
    return openai.AsyncOpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 30.0, **options})
