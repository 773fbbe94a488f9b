"""Keep the frameworks' chatter off the terminal: a user reads our report, not their logs.

torch.onnx prints its progress, onnxruntime's quantizer logs advice on pre-processing, transformers and scikit-learn
warn of things that parity checks here anyway. Errors are raised, and get through.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log lines under CRITICAL, nothing on sys.stdout and sys.stderr, while the block runs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
