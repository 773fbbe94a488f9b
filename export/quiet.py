"""Keep the frameworks' chatter off the terminal: a user reads our report, not their logs.

torch.onnx prints its progress, onnxruntime's quantizer logs advice on pre-processing, transformers and scikit-learn
warn of things that parity checks here anyway. Errors are raised, and get through.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


class _Muted(io.StringIO):
    """Swallows what is printed, but for rich: a progress display goes on drawing.

    rich writes to sys.stderr as it finds it, or to that object's ``rich_proxied_file`` (rich 13 to 15). Frames drawn
    into nothing would make it move the cursor up over lines that were never there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rich_proxied_file = getattr(sys.stderr, "rich_proxied_file", sys.stderr)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log lines under CRITICAL, nothing on sys.stdout and sys.stderr, while the block runs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(_Muted()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
