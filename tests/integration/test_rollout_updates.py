"""Updates in a row while clients ask over HTTP and gRPC: no request fails, none sees parts of two versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from conch.repository import Repository
from conch.tensor_spec import Array
from server import tiny_models
from server.embedded import EmbeddedServer
from server.options import ServerOptions
from server.rollout.live import connect
from server.rollout.switch import Switched, publish
from server.under_load import Load, LoadReport
from tests.fakes.tiny_stages import stage_written

UPDATES = 20
STEADY_S = 2.0


@dataclass(frozen=True)
class Updated:
    """What updates in a row came to; ``steady_p99_ms`` is from before the first."""

    steady_p99_ms: float
    report: LoadReport
    done: tuple[Switched, ...]
    seen: tuple[bool, ...]


def update_in_a_row(
    server: EmbeddedServer,
    root: Path,
    name: str,
    write: Callable[[Path, str, int], Path],
    check: Callable[[Mapping[str, Array]], str],
    begin: threading.Barrier,
) -> Updated:
    """Publish versions 2 to 21 while four clients ask, and wait after each until every client has met it."""
    repository = Repository(root)
    done, seen = [], []
    with (
        connect(server.grpc_url) as live,
        Load([server.http_url, server.grpc_url], name, tiny_models.ASKED, check, longest_s=400, pause_s=0.03) as load,
    ):
        time.sleep(STEADY_S)
        steady_p99_ms = load.report().quantile_ms(0.99)
        begin.wait(60)  # nobody updates while another measures the steady state
        for k in range(2, UPDATES + 2):
            with repository.stage() as stage:
                stage_written(stage, write, name, k)
                with load.update():
                    done.append(publish(stage, live, verify=lambda name, version: None))
            seen.append(load.wait_for(str(k)))
    return Updated(steady_p99_ms, load.report(), tuple(done), tuple(seen))


@pytest.mark.integration
@pytest.mark.parametrize("control", ["explicit", "poll"])
def test_twenty_updates_in_a_row_fail_and_mix_nothing(
    tmp_path: Path, control: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single model and a pipeline of three parts, in two repositories of one server, at the same time."""
    roots = {"single": tmp_path / "single", "pipeline": tmp_path / "pipeline"}
    tiny_models.write_single(roots["single"], "single", 1)
    tiny_models.write_pipeline(roots["pipeline"], "pipeline", 1)
    load_models = {"load_models": ("single", "pipeline")} if control == "explicit" else {}
    options = ServerOptions(
        control=control, poll_interval_s=1, http_port=0, grpc_port=0, metrics_port=0, exit_timeout_s=1, **load_models
    )
    updated: dict[str, Updated] = {}
    begin = threading.Barrier(2)
    with EmbeddedServer(list(roots.values()), options) as server:
        single = threading.Thread(
            target=lambda: updated.update(
                single=update_in_a_row(
                    server, roots["single"], "single", tiny_models.write_single, tiny_models.single_version, begin
                )
            )
        )
        single.start()
        updated["pipeline"] = update_in_a_row(
            server, roots["pipeline"], "pipeline", tiny_models.write_pipeline, tiny_models.pipeline_version, begin
        )
        single.join()
        server.kill()
    with capsys.disabled():
        for kind, result in updated.items():
            over_ms = result.report.quantile_ms(0.99, during_updates=True)
            print(f"\n{control}, {kind}, {UPDATES} updates, {result.report.requests} requests")
            print(f"p99 {over_ms:.1f} ms over the updates, {result.steady_p99_ms:.1f} ms steady")
    expected = [str(k) for k in range(1, UPDATES + 2)]
    for kind in ("single", "pipeline"):
        report = updated[kind].report
        assert (report.failed, report.mixed) == (0, 0), report.failures
        assert all(updated[kind].seen)
        assert list(report.versions) == expected
        assert [done.version for done in updated[kind].done] == list(range(2, UPDATES + 2))
        # No client ever met an older version again.
        assert [int(v) for v in report.turns(0)] == sorted(int(v) for v in report.turns(0))
        folders = {p.name for p in roots[kind].iterdir() if p.is_dir()}
        assert not {n for n in folders if ".v" in n}
        configs = "".join(p.read_text() for p in roots[kind].glob("*/config.pbtxt"))
        assert "specific" not in configs
        assert "model_version: 2" not in configs
