"""Put the stand-ins' folders on the path, last, as Triton does: their files import each other by bare name."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import triton_python_backend_utils as fake

STAND_INS = Path(__file__).parents[3] / "server" / "embedded_backends"
sys.path += [str(STAND_INS / "onnxruntime"), str(STAND_INS / "pytorch")]

Load = Callable[..., fake.LoadedModel]


@pytest.fixture
def load_stand_in(tmp_path: Path) -> Iterator[Load]:
    """A function (backend, files, kind="CPU", **config) -> a model of one version, loaded in the fake Triton.

    ``files`` are the contents of the version folder; ``config`` is what `fake.model_config` takes.
    """
    with ExitStack() as stack:

        def load(
            backend: str, files: Mapping[str, bytes], *, kind: str = "CPU", config_pbtxt: str = "", **config: Any
        ) -> fake.LoadedModel:
            version = tmp_path / "m" / "1"
            version.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (version / name).parent.mkdir(parents=True, exist_ok=True)
                (version / name).write_bytes(content)
            if config_pbtxt:
                (version.parent / "config.pbtxt").write_text(config_pbtxt)
            loaded: AbstractContextManager[fake.LoadedModel] = fake.load(
                version, fake.model_config(**{"name": "m", **config}), backend=STAND_INS / backend, kind=kind
            )
            return stack.enter_context(loaded)

        yield load
