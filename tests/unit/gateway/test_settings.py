"""A gateway's settings: where each comes from, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.errors import ConfigError
from gateway import settings
from gateway.read_settings import read, read_limits, server
from gateway.settings import CacheSettings, Limits, Rates, Server, Settings


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def test_nothing_said_is_a_gateway_before_the_usual_triton() -> None:
    assert read(None, {}) == Settings()


def test_the_documented_file_is_read_whole(tmp_path: Path) -> None:
    """The keys that the module's docstring shows are the keys that there are."""
    assert settings.__doc__ is not None
    document = yaml.safe_load(settings.__doc__.split("\n\n")[1])
    document |= {"repository": str(tmp_path), "tls_cert": str(tmp_path), "tls_key": str(tmp_path)}
    known = read(written(tmp_path, yaml.safe_dump(document)), {})
    assert set(document) == {name for name in vars(known) if name != "file"}
    assert known.limits.keys == {"KEY_ID": Rates(requests=("10/second",))}
    assert known.cache == CacheSettings(60, 64, "memory")


def test_flags_win_over_the_environment_and_this_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "port: 1\nworkers: 2\nqueue_limit: 3\n")
    known = read(path, {"CONCH_GATEWAY_WORKERS": "4", "CONCH_GATEWAY_QUEUE_LIMIT": "5"}, {"queue_limit": 6})
    assert (known.port, known.workers, known.queue_limit, known.file) == (1, 4, 6, path)


@pytest.mark.parametrize(
    ("variable", "text", "key", "expected"),
    [
        ("TIMEOUT_S", "300", "timeout_s", 300.0),
        ("FALLBACKS", "{chat: [small, tiny]}", "fallbacks", {"chat": ("small", "tiny")}),
        (
            "SERVERS",
            "http://a:1 http://b:2,grpc://b:7",
            "servers",
            (Server("grpc://a:2", "http://a:1"), Server("grpc://b:7", "http://b:2")),
        ),
        ("LIMITS", "{requests: 5/minute}", "limits", Limits(requests=("5/minute",))),
        ("ADMIN", "false", "admin", False),
        ("CORS_ORIGINS", "[https://a.example]", "cors_origins", ("https://a.example",)),
    ],
)
def test_the_environment_says_lists_and_mappings_too(variable: str, text: str, key: str, expected: object) -> None:
    assert getattr(read(None, {f"CONCH_GATEWAY_{variable}": text}), key) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 80", "did you mean port?"),
        ("limits: {request: [1/second]}", "did you mean requests?"),
        ("port: high", "a whole number"),
        ("port: true", "a whole number"),
        ("workers: 0", "1 or more"),
        ("timeout_s: 0", "timeout_s is out of range"),
        ("queue_limits: 5", "a mapping"),
        ("queue_limits: {chat: many}", "queue_limits: chat"),
        ("limits: {when_store_fails: alow}", "did you mean allow?"),
        ("log_format: jsn", "did you mean json?"),
        ("servers: []", "no server"),
        ("servers: [8000]", "a mapping"),
        ("servers: [localhost]", "no address"),
        ("tls_cert: gateway.yaml", "certificate and its key"),
        ("repository: nowhere", "not there"),
        ("fallbacks: {a: [a]}", "itself"),
        ("port: [", "no YAML"),
        ("- port", "no mapping"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(written(tmp_path, text), {})
    assert said in str(refused.value)


def test_paths_are_meant_from_the_files_folder(tmp_path: Path) -> None:
    assert read(written(tmp_path, "keys_file: keys.yaml"), {}).keys_file == tmp_path / "keys.yaml"


def test_limits_are_read_again_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "limits: {tokens: [10/minute]}")
    assert read_limits(path).tokens == ("10/minute",)
    assert read_limits(written(tmp_path, "port: 1")) == Limits()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h:8000", Server("grpc://h:8001", "http://h:8000")),
        ("grpc://h:8001", Server("grpc://h:8001", "http://h:8000")),
        ("grpcs://h:8443, https://h:443", Server("grpcs://h:8443", "https://h:443")),
    ],
)
def test_a_server_is_named_by_one_url_or_two(text: str, expected: Server) -> None:
    assert server(text) == expected


def test_every_setting_is_typed_for_the_reader() -> None:
    values: dict[str, Any] = {name: value for name, value in vars(Settings()).items() if name != "file"}
    assert read(None, {}, values) == Settings()
