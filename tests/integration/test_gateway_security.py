"""Keys, roles, limits, CORS, TLS and the audit log, against a gateway that listens, before a real Triton."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gateway.security.keys_file import update
from gateway.settings import Limits
from tests.fakes.gateway_asks import add_key, ask, predict
from tests.fakes.parrot import add_parrot
from tests.fakes.tls_proxy import make_certificates
from tests.gateway_fixtures import wait_ready

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def models(triton: Any, write_python_model: Any) -> tuple[str, str]:
    names = ("guarded_open", "guarded_closed")
    for name in names:
        write_python_model(triton.repository, name)
        triton.load(name)
    return names


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_keys_open_what_they_may_and_nothing_else(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path
) -> None:
    secret = add_key(keys_file, "reports", models=("guarded_op*",))
    gateway = start_gateway(triton, keys_file=keys_file)
    wait_ready(gateway)
    assert predict(gateway, models[0], secret).status == 200
    assert predict(gateway, models[1], secret).code == "model_not_allowed"
    missing, wrong = predict(gateway, models[0]), predict(gateway, models[0], secret[:-1] + "x")
    assert [(r.status, r.code) for r in (missing, wrong)] == [(401, "invalid_api_key")] * 2
    assert set(wrong.document["error"]) == {"message", "type", "param", "code"}
    assert secret not in wrong.body.decode()


def test_a_list_of_models_names_those_alone_that_a_key_may_use(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path
) -> None:
    few, all_of_them = add_key(keys_file, "few", models=("guarded_op*",)), add_key(keys_file, "all")
    gateway = start_gateway(triton, keys_file=keys_file)
    wait_ready(gateway)

    def named(secret: str) -> list[set[str]]:
        index = ask(gateway, "/v2/repository/index", {}, key=secret).document
        stats = ask(gateway, "/v2/models/stats", key=secret).document["model_stats"]
        return [{each["name"] for each in index}, {each["name"] for each in stats}]

    assert named(few) == [{"guarded_open"}, {"guarded_open"}]
    assert all(names >= set(models) for names in named(all_of_them))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict/guarded_open"),
        ("POST", "/predict/guarded_open/batch"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("GET", "/v1/models"),
        ("POST", "/v2/models/guarded_open/infer"),
        ("GET", "/v2/models/guarded_open/config"),
        ("POST", "/v2/repository/models/guarded_open/unload"),
        ("POST", "/admin/models/guarded_open/unload"),
        ("POST", "/generate"),
        ("POST", "/stream"),
    ],
)
def test_no_route_to_a_model_goes_around_the_keys(
    triton: Any, models: tuple[str, str], guarded: Any, method: str, path: str
) -> None:
    body = {} if method == "POST" else None
    assert ask(guarded, path, body, method=method).status == 401


@pytest.fixture(scope="module")
def guarded(triton: Any, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway with one key that nobody here has."""
    from tests.gateway_fixtures import running_gateway

    path = tmp_path_factory.mktemp("guarded") / "keys.json"
    add_key(path, "somebody")
    with running_gateway(triton, keys_file=path) as gateway:
        wait_ready(gateway)
        yield gateway


def test_keys_change_without_a_restart_and_a_bad_edit_leaves_the_old_ones(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = add_key(keys_file, "first")
    gateway = start_gateway(triton, keys_file=keys_file)
    wait_ready(gateway)
    second = add_key(keys_file, "second")
    time.sleep(1.1)
    assert predict(gateway, models[0], second).status == 200
    good = keys_file.read_bytes()
    keys_file.write_text("format: 1\nkeys: [{name: first, sha256:")
    time.sleep(1.1)
    assert predict(gateway, models[0], first).status == 200
    assert "the keys stay as they were" in caplog.text
    keys_file.write_bytes(good)
    update(keys_file, lambda before: tuple(k for k in before if k.name != "first"))
    time.sleep(1.1)
    assert predict(gateway, models[0], first).status == 401
    assert predict(gateway, models[0], second).status == 200


def test_a_key_over_its_limit_waits_and_others_do_not(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path
) -> None:
    small, large = add_key(keys_file, "small", requests="2/minute"), add_key(keys_file, "large")
    gateway = start_gateway(triton, keys_file=keys_file, limits=Limits(requests=("100/minute",)))
    wait_ready(gateway)
    replies = [predict(gateway, models[0], small) for _ in range(3)]
    assert [r.status for r in replies] == [200, 200, 429]
    assert [r.headers["x-ratelimit-remaining-requests"] for r in replies] == ["1", "0", "0"]
    assert 1 <= int(replies[2].headers["retry-after"]) <= 60
    assert replies[2].code == "rate_limit_exceeded"
    other = predict(gateway, models[0], large)
    assert (other.status, other.headers["x-ratelimit-limit-requests"]) == (200, "100")


def test_tokens_are_counted_as_they_are_made_streamed_or_whole(
    triton: Any, start_gateway: Any, keys_file: Path
) -> None:
    from openai import OpenAI, RateLimitError

    add_parrot(triton, "counted_parrot")
    secret = add_key(keys_file, "talker", tokens="20/hour")
    gateway = start_gateway(triton, keys_file=keys_file)
    wait_ready(gateway)
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=0)

    def say(**options: Any) -> Any:
        made = client.completions.with_raw_response.create(model="counted_parrot", prompt="a b c d", **options)
        return made.headers["x-ratelimit-remaining-tokens"], made.parse()

    left, whole = say(max_tokens=4)
    assert (left, whole.usage.total_tokens) == ("20", 8)
    left, stream = say(max_tokens=4, stream=True)
    assert left == "12"
    assert "".join(chunk.choices[0].text for chunk in stream) == "a b c d"
    assert say(max_tokens=8)[0] == "4"  # the last answer may go over
    with pytest.raises(RateLimitError) as caught:
        say(max_tokens=1)
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "tokens")
    assert 3500 < int(caught.value.response.headers["retry-after"]) <= 3600


def test_a_page_of_a_known_origin_may_call_and_read_refusals(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path
) -> None:
    add_key(keys_file, "a")
    gateway = start_gateway(triton, keys_file=keys_file, cors_origins=("https://known.example",))
    wait_ready(gateway)
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    known = {"Origin": "https://known.example"}
    asked = ask(gateway, f"/predict/{models[0]}", headers={**known, **preflight}, method="OPTIONS")
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, "https://known.example")
    refused = predict(gateway, models[0], headers=known)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://known.example")
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    unknown = {"Origin": "https://unknown.example"}
    assert ask(gateway, "/v1/models", headers={**unknown, **preflight}, method="OPTIONS").status == 400
    assert "access-control-allow-origin" not in predict(gateway, models[0], headers=unknown).headers


def test_no_page_may_call_by_default(triton: Any, models: tuple[str, str], gateway: Any) -> None:
    reply = predict(gateway, models[0], headers={"Origin": "https://known.example"})
    assert (reply.status, "access-control-allow-origin" in reply.headers) == (200, False)


def test_https_with_a_real_certificate(
    triton: Any, models: tuple[str, str], start_gateway: Any, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path)
    gateway = start_gateway(triton, tls_cert=Path(made.cert), tls_key=Path(made.key))
    trusting = ssl.create_default_context(cafile=made.ca)
    end = time.monotonic() + 30
    secure = type("Secure", (), {"url": gateway.url.replace("http://", "https://")})
    while ask(secure, "/ready", context=trusting).status != 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert predict(secure, models[0], context=trusting).status == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        predict(secure, models[0], context=ssl.create_default_context())
    with pytest.raises((http.client.HTTPException, OSError)):
        predict(gateway, models[0])


def lines_of(log: Path, count: int) -> list[dict[str, Any]]:
    """The lines of the audit log, once there are so many: a line is written after its answer is sent."""
    end = time.monotonic() + 10
    while not log.exists() or len(found := log.read_text().splitlines()) < count:
        assert time.monotonic() < end
        time.sleep(0.02)
    return [json.loads(line) for line in found]


@pytest.mark.parametrize("contents", [False, True])
def test_the_audit_log_holds_who_did_what_and_contents_only_when_asked(
    triton: Any, models: tuple[str, str], start_gateway: Any, keys_file: Path, tmp_path: Path, contents: bool
) -> None:
    secret = add_key(keys_file, "reports")
    log = tmp_path / "audit.jsonl"
    gateway = start_gateway(triton, keys_file=keys_file, audit_log=log, audit_contents=contents)
    wait_ready(gateway)
    reply = predict(gateway, models[0], secret, headers={"X-Request-Id": "mine-1"})
    predict(gateway, models[0])
    assert reply.status == 200
    lines = lines_of(log, 2)
    assert [line["status"] for line in lines] == [200, 401]
    assert (lines[0]["key"], lines[0]["model"], lines[0]["request"]) == ("reports", models[0], "mine-1")
    assert (lines[0]["version"], lines[0]["answered_by"]) == ("1", models[0])
    assert ('"x"' in lines[0].get("contents", "")) is contents
    assert secret not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_audit_log_that_was_rotated_away_is_begun_anew(
    triton: Any, models: tuple[str, str], start_gateway: Any, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    gateway = start_gateway(triton, audit_log=log)
    wait_ready(gateway)
    predict(gateway, models[0])
    lines_of(log, 1)
    log.rename(tmp_path / "audit.1")
    time.sleep(1.1)
    predict(gateway, models[0])
    assert len(lines_of(log, 1)) == 1
