"""Limits a key: what is counted, what is refused and how it is told, what happens without the store."""

import asyncio
import logging
from pathlib import Path

import pytest

from conch.errors import ConfigError
from gateway.cache import result_cache
from gateway.caller import ANONYMOUS, Caller
from gateway.errors import GatewayError
from gateway.pieces import NoLimiter
from gateway.request_info import RequestInfo, new_info
from gateway.security import limiter
from gateway.security.guard import KeyCaller
from gateway.security.limiter import KeyLimiter, duration, windows_of
from gateway.security.store_health import StoreHealth
from gateway.security.watched_file import WatchedFile
from gateway.settings import CacheSettings, Limits, Rates, Settings

# Nobody listens there: port 1 is reserved.
NO_REDIS = "redis://127.0.0.1:1/0"

A, B = Caller("a"), Caller("b")


def headers(info: RequestInfo) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in info.record.headers}


async def admit(limits: KeyLimiter, caller: Caller = A, times: int = 1) -> RequestInfo:
    info = new_info()
    await limits.admit(caller, "spam", info)
    return info if times == 1 else await admit(limits, caller, times - 1)


async def refused(limits: KeyLimiter, caller: Caller = A) -> tuple[GatewayError, RequestInfo]:
    info = new_info()
    with pytest.raises(GatewayError) as caught:
        await limits.admit(caller, "spam", info)
    return caught.value, info


async def test_a_key_over_its_limit_is_told_when_to_come_back() -> None:
    limits = KeyLimiter(Limits(requests=("2/minute",)))
    left = headers(await admit(limits, times=2))
    assert (left["x-ratelimit-limit-requests"], left["x-ratelimit-remaining-requests"]) == ("2", "0")
    error, info = await refused(limits)
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert 58 <= int(error.headers["Retry-After"]) <= 60
    assert headers(info)["x-ratelimit-reset-requests"] in ("58s", "59s", "1m0s")
    assert info.record.refused == "limit:requests"


async def test_just_so_many_of_those_that_come_at_once_pass() -> None:
    limits = KeyLimiter(Limits(requests=("10/minute",)))
    asked = await asyncio.gather(*(admit(limits) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(one, GatewayError) for one in asked) == 40


async def test_keys_are_counted_apart() -> None:
    limits = KeyLimiter(Limits(requests=("1/minute",)))
    await admit(limits, A)
    await refused(limits, A)
    await admit(limits, B)


async def test_of_several_limits_the_narrowest_is_told() -> None:
    limits = KeyLimiter(Limits(requests=("100/day", "3/minute")))
    left = headers(await admit(limits))
    assert (left["x-ratelimit-limit-requests"], left["x-ratelimit-remaining-requests"]) == ("3", "2")


async def test_tokens_are_counted_when_they_were_made() -> None:
    limits = KeyLimiter(Limits(tokens=("10/minute",)))
    await admit(limits)
    await limits.charge(A, "chat", input_tokens=4, output_tokens=3)
    assert headers(await admit(limits))["x-ratelimit-remaining-tokens"] == "3"
    await limits.charge(A, "chat", input_tokens=4, output_tokens=100)
    error, info = await refused(limits)
    assert (error.status, error.type) == (429, "tokens")
    assert headers(info)["x-ratelimit-remaining-tokens"] == "0"


async def test_a_window_that_is_used_up_to_the_last_token_is_closed() -> None:
    limits = KeyLimiter(Limits(tokens=("10/minute",)))
    await limits.charge(A, "chat", input_tokens=5, output_tokens=5)
    await refused(limits)


async def test_a_window_ends() -> None:
    limits = KeyLimiter(Limits(requests=("1/second",)))
    await admit(limits)
    error, _ = await refused(limits)
    await asyncio.sleep(int(error.headers["Retry-After"]))
    await admit(limits)


@pytest.mark.parametrize(
    ("caller", "requests"),
    [
        (ANONYMOUS, 1),
        (Caller("big"), 2),
        (KeyCaller("big", requests="3/minute"), 3),
        (KeyCaller("own", requests="4/minute"), 4),
        (KeyCaller("plain"), 1),
    ],
)
def test_a_keys_own_limits_come_first_then_the_settings_for_it_then_everybodys(caller: Caller, requests: int) -> None:
    limits = Limits(requests=("1/minute",), keys={"big": Rates(requests=("2/minute",))})
    assert [w.amount for w in windows_of(caller, limits).requests] == [requests]


async def test_without_limits_nothing_is_counted_or_told() -> None:
    assert headers(await admit(KeyLimiter(Limits()), times=5)) == {}
    assert isinstance(limiter.build(Settings()), NoLimiter)


@pytest.mark.parametrize("bad", [Limits(requests=("often",)), Limits(keys={"a": Rates(tokens=("1",))})])
def test_a_limit_that_does_not_parse_is_refused_at_the_start(bad: Limits) -> None:
    with pytest.raises(ConfigError, match="no limit"):
        KeyLimiter(bad)


@pytest.mark.parametrize("store", ["memcached://127.0.0.1", "127.0.0.1:6379", "redis"])
def test_a_store_that_is_none_is_refused_at_the_start(store: str) -> None:
    with pytest.raises(ConfigError, match="no store"):
        KeyLimiter(Limits(requests=("1/minute",), store=store))
    with pytest.raises(ConfigError, match="no store"):
        result_cache.build(Settings(cache=CacheSettings(store=store)))


async def test_without_its_store_everybody_passes_where_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    limits = KeyLimiter(Limits(requests=("1/minute",), store=NO_REDIS, when_store_fails="allow"))
    with caplog.at_level(logging.WARNING, logger="conch.gateway"):
        await admit(limits, times=5)
        await limits.charge(A, "chat", input_tokens=1, output_tokens=1)
    assert [r.levelname for r in caplog.records] == ["WARNING"]


async def test_without_its_store_nobody_passes_where_that_is_refused() -> None:
    limits = KeyLimiter(Limits(requests=("1/minute",), store=NO_REDIS, when_store_fails="refuse"))
    error, info = await refused(limits)
    assert (error.status, error.headers["Retry-After"], info.record.refused) == (503, "1", "limit:store")
    await refused(limits)


def test_a_store_is_left_alone_for_a_second_and_said_to_be_gone_once(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    health = StoreHealth("the store", clock=lambda: now_s)
    with caplog.at_level(logging.WARNING, logger="conch.gateway"):
        health.failed(OSError("down"))
        assert not health.usable
        now_s = 1.0
        assert health.usable
        health.failed(OSError("still down"))
        assert not health.usable
        health.worked()
        health.worked()
        assert health.usable
    assert [r.getMessage() for r in caplog.records] == ["the store is gone: OSError: down", "the store is back"]


async def test_limits_that_change_in_the_settings_count_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("limits: {requests: 1/minute}")
    limits = KeyLimiter(Limits(requests=("1/minute",)), path)
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 2
        return now_s

    limits._file = WatchedFile(path, clock=clock)
    await admit(limits)
    await refused(limits)
    path.write_text("limits: {requests: 50/minute}")
    assert headers(await admit(limits))["x-ratelimit-limit-requests"] == "50"
    path.write_text("limits: {requests: often}")
    with caplog.at_level(logging.ERROR, logger="conch.gateway"):
        assert headers(await admit(limits))["x-ratelimit-limit-requests"] == "50"
    assert "the limits stay as they were" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0ms"), (0.0124, "12ms"), (1, "1s"), (6.2, "7s"), (360, "6m0s"), (3600, "1h0m0s"), (86399.5, "24h0m0s")],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
