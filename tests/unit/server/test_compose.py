"""docker-compose.yml is valid, mounts what exists, and agrees with the rest of the project."""

from __future__ import annotations

import ast
import importlib.resources
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from conch.releases import DEFAULT_TARGET
from gateway import read_settings
from gateway.settings import Settings

ROOT = Path(__file__).parents[3]
TRITONS = ["triton", "triton-gpu"]
VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> Any:
    """The file with every variable at its default."""
    return yaml.safe_load(VARIABLE.sub(r"\1", text))


def schema() -> Any:
    """The compose specification's own schema, as check-jsonschema carries it."""
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((folder / "compose-spec.json").read_text())


def test_it_follows_the_compose_specification(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), schema())


def test_the_schema_would_find_a_mistake(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text.replace("shm_size:", "shm_siez:")), schema())


def test_every_variable_has_a_default(text: str) -> None:
    assert "$" not in VARIABLE.sub("", text)


@pytest.mark.parametrize("service", [*TRITONS, "gateway"])
def test_every_path_of_this_machine_exists(compose: Any, service: str) -> None:
    service = compose["services"][service]
    sources = [volume["source"] for volume in service["volumes"]]
    assert sources
    assert all((ROOT / source).is_dir() for source in sources)
    build = service["build"]
    assert (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()


def test_the_mounted_repository_is_in_git() -> None:
    kept = [p for p in (ROOT / "model_repository").iterdir() if p.name == ".gitkeep" or (p / "config.pbtxt").is_file()]
    assert kept


@pytest.mark.parametrize("service", TRITONS)
def test_the_repository_is_read_only_and_what_the_server_reads(compose: Any, service: str) -> None:
    [volume] = compose["services"][service]["volumes"]
    assert volume["read_only"] is True
    assert f"--model-repository={volume['target']}" in compose["services"][service]["command"]


def test_the_release_is_the_embedded_servers() -> None:
    dockerfile = (ROOT / "server/image/Dockerfile").read_text()
    text = (ROOT / "docker-compose.yml").read_text()
    assert f"ARG TRITON_VERSION={DEFAULT_TARGET}" in dockerfile
    assert "FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3" in dockerfile
    assert set(re.findall(r"\$\{TRITON_VERSION:-([^}]*)\}", text)) == {DEFAULT_TARGET}


@pytest.mark.parametrize(("dockerfile", "context"), [("server/image", "server/image"), ("gateway/image", ".")])
def test_what_the_dockerfile_copies_exists(dockerfile: str, context: str) -> None:
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / dockerfile / "Dockerfile").read_text(), re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert copied
    assert [name for name in copied if not (ROOT / context / name).exists()] == []


def test_the_gateways_context_holds_what_its_dockerfile_copies() -> None:
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "gateway/image/Dockerfile").read_text(), re.MULTILINE)
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert {name for line in lines for name in line.split()} == kept


def test_the_gateway_stops_after_its_requests(compose: Any) -> None:
    settings = Settings()
    grace_s = int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.notice_s + settings.drain_s


def test_the_gateway_takes_its_environment(compose: Any) -> None:
    inside = compose["services"]["gateway"]["environment"]
    assert inside["CONCH_GATEWAY_REPOSITORY"] == compose["services"]["gateway"]["volumes"][0]["target"]
    settings = read_settings.read(None, inside | {"CONCH_GATEWAY_REPOSITORY": str(ROOT / "model_repository")})
    assert [server.http for server in settings.servers] == ["http://triton:8000"]


def imported(file: Path) -> set[str]:
    """The top-level names of the packages that a Python file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_image_has_what_the_python_models_import() -> None:
    files = list((ROOT / "python_backends").rglob("*.py"))
    own = {file.stem for file in files} | {"triton_python_backend_utils"} | set(sys.stdlib_module_names)
    own |= {"google", "tritonclient"}  # of a function that only the embedded server's stand-ins call
    needed = set().union(*(imported(file) for file in files)) - own
    lines = (ROOT / "server/image/requirements.txt").read_text().splitlines()
    installed = {re.split(r"[<>=]", line)[0] for line in lines if line and not line.startswith("#")}
    package = {"PIL": "pillow", "yaml": "pyyaml", "openvino_genai": "openvino-genai"}
    assert needed
    assert {package.get(name, name) for name in needed} <= installed


@pytest.mark.parametrize("service", TRITONS)
def test_all_three_ports_are_published_on_loopback(compose: Any, service: str) -> None:
    assert compose["services"][service]["ports"] == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]


@pytest.mark.parametrize("service", TRITONS)
def test_stopping_outlasts_triton_s_own_drain(compose: Any, service: str) -> None:
    service = compose["services"][service]
    [drain] = [c.partition("=")[2] for c in service["command"] if c.startswith("--exit-timeout-secs")]
    assert int(service["stop_grace_period"].removesuffix("s")) > int(drain)
    assert any("/v2/health/ready" in part for part in service["healthcheck"]["test"])
    assert service["shm_size"]


def test_only_the_gpu_service_asks_for_gpus(compose: Any) -> None:
    assert "deploy" not in compose["services"]["triton"]
    assert compose["services"]["triton-gpu"]["profiles"] == ["gpu"]
    devices = compose["services"]["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["capabilities"] == ["gpu"]
