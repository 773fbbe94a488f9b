from __future__ import annotations

import io
import logging
import sys
import warnings

import pytest
from rich.console import Console

from export.quiet import quiet


def test_frameworks_are_silenced_and_then_heard_again(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("some.framework")
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        with quiet():
            print("[torch.onnx] Obtain model graph...")
            print("advice", file=sys.stderr)
            log.warning("a log line")
            warnings.warn("a warning", stacklevel=1)
        assert capsys.readouterr() == ("", "")
        log.warning("heard")
        assert capsys.readouterr().err == "heard\n"
    finally:
        log.removeHandler(handler)


def test_an_error_gets_through() -> None:
    with pytest.raises(ValueError, match="broken"), quiet():
        raise ValueError("broken")


def test_a_progress_display_goes_on_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(stderr=True)
    with quiet():
        console.print("a frame")
        print("chatter", file=sys.stderr)
    assert terminal.getvalue() == "a frame\n"
