"""Admin endpoints: load, unload, publish and roll back through the gateway, by admins' keys alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.security import keys
from gateway.security.keys import Key
from gateway.security.keys_file import update
from gateway.settings import CacheSettings
from tests.gateway_fixtures import running_gateway, wait_ready

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Site:
    """A gateway with two keys, its folder of new versions, and its audit log."""

    url: str
    admin: str
    user: str
    outbox: Path
    audit: Path

    def post(self, path: str, document: Any = None, key: str | None = None) -> tuple[int, Any]:
        data = json.dumps(document).encode() if document is not None else b""
        sent = {"Authorization": f"Bearer {key or self.admin}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, sent, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def predict(self, model: str) -> Any:
        status, document = self.post(f"/predict/{model}", {"x": 1.0})
        return document["y"] if status == 200 else status


@pytest.fixture(scope="module")
def site(triton: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("site")
    secrets = {name: keys.new_secret(name) for name in ("operator", "user")}
    roles = {"operator": frozenset({"admin", "infer"}), "user": frozenset({"infer"})}
    made = tuple(Key(name, keys.digest(secret), roles[name]) for name, secret in secrets.items())
    update(folder / "keys.yaml", lambda before: made)
    outbox = folder / "outbox"
    outbox.mkdir()
    with running_gateway(
        triton,
        keys_file=folder / "keys.yaml",
        audit_log=folder / "audit.jsonl",
        repository=triton.repository,
        publish_from=outbox,
        cache=CacheSettings(ttl_s=600),
    ) as gateway:
        wait_ready(gateway)
        yield Site(gateway.url, secrets["operator"], secrets["user"], outbox, folder / "audit.jsonl")


def acts(site: Site, subject: str) -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in site.audit.read_text().splitlines()]
    return [(x["key"], x["action"], x["outcome"]) for x in lines if x.get("subject") == subject]


def test_load_and_unload(triton: Any, site: Site, write_python_model: Any) -> None:
    write_python_model(triton.repository, "steered")
    status, document = site.post("/admin/models/steered/load")
    assert (status, document["model"], len(document["servers"])) == (200, "steered", 1)
    assert site.predict("steered") == 2.0
    assert site.post("/admin/models/steered/unload")[0] == 200
    assert site.predict("steered") in (404, 503)
    assert acts(site, "steered") == [("operator", "load", "done"), ("operator", "unload", "done")]


@pytest.mark.parametrize("action", ["load", "unload", "rollback"])
def test_only_admins_steer(site: Site, action: str) -> None:
    status, document = site.post(f"/admin/models/steered/{action}", key=site.user)
    assert (status, document["error"]["code"]) == (403, "not_admin")
    assert site.post(f"/admin/models/steered/{action}", key="conch-user-0")[0] == 401
    lines = [json.loads(line) for line in site.audit.read_text().splitlines()]
    assert any(line.get("status") == 403 and line["key"] == "user" for line in lines)


def test_only_admins_publish(site: Site) -> None:
    assert site.post("/admin/models/steered/publish", {"source": "x"}, key=site.user)[0] == 403


def test_a_gateway_without_keys_has_no_admin(gateway: Any) -> None:
    request = urllib.request.Request(f"{gateway.url}/admin/models/steered/load", b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 403


def test_a_failure_says_why_and_is_written_down(triton: Any, site: Site, write_python_model: Any) -> None:
    assert site.post("/admin/models/nothing_there/load")[0] == 404
    write_python_model(triton.repository, "steered_badly", source="raise RuntimeError('no weights here')")
    status, document = site.post("/admin/models/steered_badly/load")
    assert status == 422
    assert "no weights here" in document["error"]["message"]
    assert "Traceback" not in json.dumps(document)
    assert acts(site, "steered_badly")[0][2].startswith("failed: ")


def test_publish_switches_and_rollback_goes_back_and_cached_answers_go(
    triton: Any, site: Site, write_python_model: Any
) -> None:
    write_python_model(triton.repository, "renewed")
    triton.load("renewed")
    assert [site.predict("renewed"), site.predict("renewed")] == [2.0, 2.0]
    write_python_model(site.outbox, "renewed", added=10)
    status, done = site.post("/admin/models/renewed/publish", {"source": "renewed"})
    assert (status, done["version"], done["outcome"]) == (200, 2, "published"), done
    assert site.predict("renewed") == 11.0
    status, back = site.post("/admin/models/renewed/rollback")
    assert (status, back["version"]) == (200, 1), back
    assert site.predict("renewed") == 2.0
    done = [(action, outcome) for _, action, outcome in acts(site, "renewed")]
    assert done == [("publish", "done: version 2"), ("rollback", "done: version 1")]


def test_every_server_follows(start_server: Any, write_python_model: Any, tmp_path: Path) -> None:
    models, outbox, keys_file = tmp_path / "models", tmp_path / "outbox", tmp_path / "keys.yaml"
    write_python_model(models, "twice")
    write_python_model(outbox, "twice", added=10)
    secret = keys.new_secret("operator")
    update(keys_file, lambda before: (Key("operator", keys.digest(secret), frozenset({"admin", "infer"})),))
    servers = [start_server(models, control="explicit") for _ in range(2)]
    with running_gateway(*servers, keys_file=keys_file, repository=models, publish_from=outbox) as gateway:
        wait_ready(gateway)
        site = Site(gateway.url, secret, secret, outbox, tmp_path / "none")
        assert len(site.post("/admin/models/twice/load")[1]["servers"]) == 2
        assert [site.predict("twice") for _ in range(6)] == [2.0] * 6
        status, done = site.post("/admin/models/twice/publish", {"source": "twice"})
        assert (status, done.get("version")) == (200, 2), done
        assert [site.predict("twice") for _ in range(6)] == [11.0] * 6
        assert site.post("/admin/models/twice/rollback")[0] == 200
        assert [site.predict("twice") for _ in range(6)] == [2.0] * 6


@pytest.mark.parametrize("source", ["../../etc", "/etc", "nothing", "link", "\0", "\ud800"])
def test_nothing_outside_of_its_folder_is_published(site: Site, source: str) -> None:
    (site.outbox / "link").unlink(missing_ok=True)
    (site.outbox / "link").symlink_to("/etc")
    status, document = site.post("/admin/models/steered/publish", {"source": source})
    assert (status, document["error"]["param"]) == (404, "source")


@pytest.mark.parametrize("body", [{}, {"source": "x", "sauce": 1}, {"source": 3}, [1]])
def test_a_body_that_is_none_is_refused(site: Site, body: Any) -> None:
    assert site.post("/admin/models/steered/publish", body)[0] == 400
