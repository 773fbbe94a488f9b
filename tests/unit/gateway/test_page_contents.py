from __future__ import annotations

from clients.replies import ModelState
from conch.tensor_spec import ModelSignature, TensorSpec
from gateway.caller import ANONYMOUS, Caller
from gateway.catalogue import EnsembleStep, ServedModel
from gateway.page.contents import model_views

TEXT = TensorSpec("text", "BYTES", (1,))
LABEL = TensorSpec("label", "BYTES", (1,))
SIGNATURE = ModelSignature((TEXT,), (LABEL,), 8)


def served(name: str, *steps: str) -> ServedModel:
    wired = tuple(EnsembleStep(step, "-1", {"text": "text"}, {"label": "label"}) for step in steps)
    return ServedModel(name, "2", ("1", "2"), "classify", SIGNATURE, backend="python", steps=wired)


STATES = (
    ModelState("spam", "2", "READY", ""),
    ModelState("spam", "10", "LOADING", ""),
    ModelState("spam_model", "2", "READY", ""),
    ModelState("broken", "1", "UNAVAILABLE", "no such file\n\nAt:\n  /srv/model.py(12): initialize\n"),
    ModelState("never", "", "", ""),
)


def test_joins_what_serves_with_what_does_not() -> None:
    views = {
        v.name: v for v in model_views([served("spam", "spam_model"), served("spam_model")], STATES, ANONYMOUS, {})
    }
    assert list(views) == ["broken", "never", "spam", "spam_model"]
    assert [(v.version, v.state) for v in views["spam"].versions] == [("10", "LOADING"), ("2", "READY")]
    assert (views["spam"].state, views["spam"].served, views["spam"].backend) == ("ready", "2", "ensemble")
    assert views["spam"].steps[0].outputs == {"label": "label"}
    assert views["spam_model"].part_of == ("spam",)
    assert (views["broken"].state, views["broken"].versions[0].reason) == ("unavailable", "no such file")
    assert views["never"].state == "unavailable"


def test_a_caller_sees_what_its_key_may_use() -> None:
    caller = Caller("ada", models=("spam*",))
    assert [v.name for v in model_views([served("spam")], STATES, caller, {})] == ["spam", "spam_model"]
