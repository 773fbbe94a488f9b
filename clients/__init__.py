"""What user code imports to ask a Triton server: `Client`, and `AsyncClient` for asyncio.

from clients import Client, text

with Client("http://127.0.0.1:8000") as client:
    answer = client.infer("spam", text=["win a prize now", "see you at nine"])
    print(text(answer["label"]), answer["score"])
"""

from clients.address import TLS
from clients.aliases import Aliases
from clients.async_client import AsyncClient
from clients.attempts import RetryPolicy
from clients.client import Client
from clients.compare import Latency, OutputDifference
from clients.convert import text
from clients.generation import Generated, Piece, TokenLogprob
from clients.replies import Answer, Duration, ModelMetadata, ModelState, ModelStatistics, ServerMetadata
from clients.request import split
from clients.routing import CanaryPassedOver
from clients.shadow import Shadow, ShadowReport

__all__ = [
    "Aliases",
    "Answer",
    "AsyncClient",
    "CanaryPassedOver",
    "Client",
    "Duration",
    "Generated",
    "Latency",
    "ModelMetadata",
    "ModelState",
    "ModelStatistics",
    "OutputDifference",
    "Piece",
    "RetryPolicy",
    "ServerMetadata",
    "Shadow",
    "ShadowReport",
    "TLS",
    "TokenLogprob",
    "split",
    "text",
]
