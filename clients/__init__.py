"""What user code imports to ask a Triton server: `Client`, and `AsyncClient` for asyncio.

from clients import Client, text

with Client("http://127.0.0.1:8000") as client:
    answer = client.infer("spam", text=["win a prize now", "see you at nine"])
    print(text(answer["label"]), answer["score"])
"""

from clients.address import TLS
from clients.async_client import AsyncClient
from clients.attempts import RetryPolicy
from clients.client import Client
from clients.convert import text
from clients.replies import Duration, ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from clients.request import split

__all__ = [
    "AsyncClient",
    "Client",
    "Duration",
    "ModelMetadata",
    "ModelState",
    "ModelStatistics",
    "RetryPolicy",
    "ServerMetadata",
    "TLS",
    "split",
    "text",
]
