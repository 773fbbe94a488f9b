"""From the stage to what serves: by one switch on the server that serves the repository, or on the files alone."""

from __future__ import annotations

from dataclasses import dataclass

from conch.errors import ConchError
from conch.repository import Stage
from server.running import find_running


@dataclass(frozen=True)
class WentLive:
    """The version's number; the address of the server that took it, "" when none did; and why one was not told."""

    version: int
    server: str = ""
    note: str = ""


def go_live(stage: Stage) -> WentLive:
    """Make the staged version live.

    A server found through `conch serve` takes the version as one whole, and is asked its golden requests; when it
    does not take it, or answers otherwise, everything is as it was. Raises: RepositoryError, ServerError,
    ModelLoadError.
    """
    repository = stage.repository
    running = find_running(repository.root)
    if running is None or running.control == "none":
        return WentLive(stage.commit())
    from server.rollout import switch, verify
    from server.rollout.live import connect

    try:
        live = connect(running.grpc_url)
    except ConchError as error:  # a restricted API: the files can change all the same
        return WentLive(stage.commit(), note=f"the server at {running.grpc_url} was not told: {error.what}")
    with live:
        done = switch.publish(stage, live, verify=verify.of_versions(live, repository, {}), by="export")
    return WentLive(done.version, live.url)
