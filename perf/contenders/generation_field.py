"""Who takes part in the comparison of generation, each as something to ask and to load."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients import AsyncClient
from clients.encoding import wire_bytes
from clients.generation import sampling_parameters
from clients.generation_wire import TextRequest
from clients.request import Question, build_request
from conch.repository import Repository
from export.llm.write_generate import SIGNATURE
from perf.contenders.entries import Role
from perf.contenders.field import UVICORN
from perf.contenders.gateway_process import gateway
from perf.contenders.generation_model import model_name
from perf.contenders.generation_work import Work, arrivals, work
from perf.contenders.line_process import LineProcess
from perf.contenders.processes import post, running
from perf.http_load import JSON
from perf.stream_load import Log, Stream, StreamResult, run_grpc_stream_load, run_sse_load
from server import ports
from server.embedded import EmbeddedServer
from server.options import ServerOptions

TIMEOUT_S = 900.0

# The bare engine as the library has it, and in the precision that ours has by default, in which a text does not depend
# on what else is in flight (python_backends/generate/generate_engine.py). The former is faster where a CPU has bf16.
DEFAULTS, AS_OURS = "bare OpenVINO GenAI, its defaults", "bare OpenVINO GenAI, our precision"
BARE: Mapping[str, Mapping[str, str]] = {
    DEFAULTS: {},
    AS_OURS: {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
}


@dataclass(frozen=True)
class Load:
    """A measurement: streams side by side, texts of so many tokens in the mean; ``nonce`` makes its prompts new.

    ``arrivals`` is for the time to the first token alone: of one stream's short texts, while long ones run on others.
    """

    nonce: str
    mean_tokens: int
    streams: int
    duration_s: float
    warmup_s: float
    arrivals: bool = False

    def work(self) -> Work:
        """What is asked."""
        return arrivals(self.nonce, self.streams) if self.arrivals else work(self.nonce, self.mean_tokens)


@dataclass(frozen=True)
class Contender:
    """One way to have text generated.

    ``texts(prompts, tokens, in_flight)`` are greedy, in the order of the prompts, so many asked for at a time.
    """

    name: str
    role: Role
    texts: Callable[[Sequence[str], int, int], list[str]]
    load: Callable[[Load], StreamResult]
    pids: tuple[int, ...] = ()


@contextmanager
def bare(label: str, folder: Path, repository: Repository, name: str) -> Iterator[Contender]:
    """The engine and no server, on the files of a version folder, with the cache that its model is configured with.

    ``label`` is one of `BARE`.
    """
    parameters = repository.config(name).parameters
    cached = "enable_prefix_caching" not in parameters or parameters["enable_prefix_caching"].string_value == "true"
    gigabytes = int(parameters["cache_size_gb"].string_value) if "cache_size_gb" in parameters else 1
    settings = {"folder": str(folder), "cache_gb": gigabytes, "prefix_caching": cached, "options": BARE[label]}
    process = LineProcess("perf.contenders.bare_generation", settings)

    def texts(prompts: Sequence[str], tokens: int, in_flight: int) -> list[str]:
        process.tell({"prompts": list(prompts), "tokens": tokens})
        return list(process.hear()["texts"])

    def load(asked: Load) -> StreamResult:
        process.tell({key: value for key, value in vars(asked).items() if key != "arrivals"})
        return StreamResult(**process.hear())

    try:
        texts(["warm"], 2, 1)
        role: Role = "limit" if label == DEFAULTS else "other"
        yield Contender(label, role, texts, load, (process.process.pid,))
    finally:
        process.end()


@contextmanager
def served(repository: Repository, weight_format: str) -> Iterator[list[Contender]]:
    """Ours: one Triton, asked over gRPC by the load and by the Python client, and over the gateway's events."""
    name = model_name(weight_format)
    options = ServerOptions(
        control="explicit", load_models=(name,), http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=3
    )
    with (
        EmbeddedServer(repository.root, options) as server,
        gateway(server.grpc_url, server.http_url, timeout_s=TIMEOUT_S) as (url, pid),
    ):
        yield [
            over_grpc(name, server.grpc_url, server.pid),
            over_events(name, url, pid),
            through_client(name, server.grpc_url),
        ]


def over_grpc(name: str, grpc_url: str, pid: int) -> Contender:
    """Streams of ModelStreamInfer, with all that our clients ask for."""
    host, _, port = grpc_url.partition("://")[2].rpartition(":")

    def load(asked: Load) -> StreamResult:
        what = asked.work()
        messages = [stream_request(name, *each) for each in zip(what.prompts, what.lengths, strict=True)]
        return run_grpc_stream_load(
            host, int(port), messages, what.lengths, asked.streams, asked.duration_s, asked.warmup_s
        )

    return Contender("conch, Triton gRPC", "ours", _client_texts(name, grpc_url), load, (pid,))


def stream_request(name: str, prompt: str, tokens: int) -> bytes:
    """A serialized ModelInferRequest for a greedy text of exactly so many tokens."""
    from tritonclient.grpc import service_pb2

    sampling = sampling_parameters(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    request = build_request(Question(name, TextRequest(sampling, prompt, stream=True).inputs), SIGNATURE)
    message = service_pb2.ModelInferRequest(model_name=name)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_input_contents.append(bytes(wire_bytes(tensor)))
    return bytes(message.SerializeToString())


def through_client(name: str, grpc_url: str) -> Contender:
    """What a program sees that uses `AsyncClient`: its own share of the cores included."""

    def load(asked: Load) -> StreamResult:
        return asyncio.run(_load_client(name, grpc_url, asked))

    return Contender("conch, AsyncClient", "ours", _client_texts(name, grpc_url), load)


async def _load_client(name: str, grpc_url: str, asked: Load) -> StreamResult:
    what, log = asked.work(), Log()

    async def keep_asking(client: AsyncClient, number: int) -> None:
        stream = Stream(log, what.lengths, number * len(what.prompts) // asked.streams)
        while True:
            stream.asked()
            prompt, tokens = what.prompts[stream.turn % len(what.prompts)], stream.length
            async for _ in client.generate_stream(name, prompt, max_tokens=tokens, temperature=0.0, ignore_eos=True):
                stream.arrived(1)
            stream.ended(True)

    async with AsyncClient(grpc_url, timeout_s=TIMEOUT_S) as client:
        cpu_s, begun_s = time.process_time(), time.perf_counter()
        streams = [asyncio.create_task(keep_asking(client, number)) for number in range(asked.streams)]
        done, _ = await asyncio.wait(streams, timeout=asked.warmup_s + asked.duration_s)
        cpu_share = (time.process_time() - cpu_s) / (time.perf_counter() - begun_s)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        for ended in done:
            ended.result()  # they end by failing alone
    begin_s = begun_s + asked.warmup_s
    return log.result(asked.streams, begin_s, begin_s + asked.duration_s, 0, cpu_share)


def _client_texts(name: str, grpc_url: str) -> Callable[[Sequence[str], int, int], list[str]]:
    async def ask_all(prompts: Sequence[str], tokens: int, in_flight: int) -> list[str]:
        places = asyncio.Semaphore(in_flight)

        async def ask(client: AsyncClient, prompt: str) -> str:
            async with places:
                text = await client.generate(name, prompt, max_tokens=tokens, temperature=0.0, ignore_eos=True)
                return text.text

        async with AsyncClient(grpc_url, timeout_s=TIMEOUT_S) as client:
            return await asyncio.gather(*(ask(client, prompt) for prompt in prompts))

    return lambda prompts, tokens, in_flight: asyncio.run(ask_all(prompts, tokens, in_flight))


def over_events(name: str, url: str, pid: int) -> Contender:
    """The gateway's /v1/completions, as server-sent events."""
    endpoint = f"{url}/v1/completions"

    def body(prompt: str, tokens: int, *, stream: bool) -> bytes:
        asked = {"model": name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": stream}
        return json.dumps(asked).encode()

    def text(prompt: str, tokens: int) -> str:
        answer = json.loads(post(endpoint, body(prompt, tokens, stream=False), JSON, TIMEOUT_S)[0])
        return str(answer["choices"][0]["text"])

    def load(asked: Load) -> StreamResult:
        what = asked.work()
        bodies = [body(*each, stream=True) for each in zip(what.prompts, what.lengths, strict=True)]
        return run_sse_load(endpoint, bodies, what.lengths, asked.streams, asked.duration_s, asked.warmup_s)

    return Contender("conch, gateway SSE", "ours", _in_threads(text), load, (pid,))


@contextmanager
def framework(checkpoint: Path, *, workers: int, threads: int, in_threads: bool) -> Iterator[Contender]:
    """FastAPI calling transformers' generate in the handler. Raises: Unavailable."""
    (port,) = ports.choose("127.0.0.1", 1)
    url = f"http://127.0.0.1:{port}/generate"
    start = [sys.executable, "-m", "uvicorn", "perf.contenders.fastapi_generate:app", *UVICORN]

    def text(prompt: str, tokens: int) -> str:
        body = json.dumps({"prompt": prompt, "max_tokens": tokens}).encode()
        return str(json.loads(post(url, body, JSON, TIMEOUT_S)[0])["text"])

    settings = {"checkpoint": str(checkpoint), "threads": threads, "in_threads": in_threads}
    with running(
        lambda _: [*start, "--workers", str(workers), "--port", str(port)], settings, lambda: text("warm", 1)
    ) as pid:
        texts = _in_threads(text)
        yield Contender(
            "FastAPI calling transformers", "framework", texts, lambda asked: _one_each(text, asked), (pid,)
        )


def _in_threads(text: Callable[[str, int], str]) -> Callable[[Sequence[str], int, int], list[str]]:
    def texts(prompts: Sequence[str], tokens: int, in_flight: int) -> list[str]:
        with ThreadPoolExecutor(in_flight) as pool:
            return list(pool.map(lambda prompt: text(prompt, tokens), prompts))

    return texts


def _one_each(text: Callable[[str, int], str], asked: Load) -> StreamResult:
    """One whole text a stream, all of the mean length, however long that takes: few would end within a fixed time."""
    what, log = work(asked.nonce, asked.mean_tokens, asked.streams), Log()

    def ask(number: int) -> None:
        stream = Stream(log, [asked.mean_tokens], 0)
        stream.asked()
        text(what.prompts[number], asked.mean_tokens)
        stream.arrived(1)
        stream.ended(True)

    begin_s = time.perf_counter()
    with ThreadPoolExecutor(asked.streams) as pool:
        list(pool.map(ask, range(asked.streams)))
    # The last text ends at the end: it counts.
    return log.result(asked.streams, begin_s, time.perf_counter() + 1e-6, 0)
