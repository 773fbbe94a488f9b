"""Aliases and canaries in the clients: who is asked for what, by which draw, and what an unknown name is told."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clients.aliases import Aliases
from clients.inference import Inference
from clients.request import Question
from clients.routing import CanaryPassedOver, Route, Router
from conch import ledger
from conch.errors import ClientError, InferenceFailed, InvalidInput, ModelNotFound, ModelNotReady
from conch.ledger import Alias, Ledger
from tests.fakes.client_transports import ECHO_CONFIG, Refused, ScriptedServer

CANARY = {"echo@stable": 1, "echo@canary": Alias("echo.v2", 2, weight=0.1)}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Draws(random.Random):
    """Draws what it is given, for ever."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


def router(source: Any, drawn: float = 0.5) -> Router:
    return Router(Aliases(source, rng=Draws(drawn)))


def set_alias(root: Path, name: str, alias_name: str, alias: Alias | None) -> None:
    ledger.update(root, lambda known: known.with_alias(name, alias_name, alias))


@pytest.mark.parametrize(
    "source",
    [
        {"echo@stable": 3},
        {"echo@stable": Alias("echo", 3)},
        Ledger(aliases={"echo": {"stable": Alias("echo", 3)}}),
    ],
)
def test_an_alias_is_resolved_from_what_was_given(source: Any) -> None:
    assert router(source).choose("echo@stable") == Route("echo", "3", "echo@stable")


@pytest.mark.parametrize("give", [str, Path, lambda root: root / ledger.LEDGER_FILE])
def test_an_alias_is_resolved_from_a_repository(tmp_path: Path, give: Any) -> None:
    set_alias(tmp_path, "echo", "canary", Alias("echo.v4", 4))
    assert Router(give(tmp_path)).named("echo@canary") == Route("echo.v4", "4", "echo@canary")


@pytest.mark.parametrize(("name", "version"), [("echo", ""), ("echo", "7"), ("other", "")])
def test_a_plain_name_stays_as_it_is(name: str, version: str) -> None:
    assert router({"echo@stable": 3}).choose(name, version) == Route(name, version, name)


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("echo@stabel", ModelNotFound, ("no alias stabel", "did you mean echo@stable?")),
        ("ecco@stable", ModelNotFound, ("ecco has no aliases", "did you mean echo@stable?")),
        ("echo@", ModelNotFound, ("no alias", "MODEL@ALIAS")),
    ],
)
def test_an_unknown_alias_is_told_the_nearest(name: str, kind: type[ClientError], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as met:
        router(CANARY).choose(name)
    assert [part for part in parts if part not in str(met.value)] == []


def test_without_aliases_the_error_says_how_to_give_them() -> None:
    with pytest.raises(InvalidInput, match=r"given none to resolve it by") as met:
        Router(None).choose("echo@stable")
    assert 'aliases="model_repository"' in str(met.value)


def test_an_alias_and_a_version_exclude_each_other() -> None:
    with pytest.raises(InvalidInput, match="names a version already"):
        router(CANARY).choose("echo@stable", "2")


@pytest.mark.parametrize(
    ("source", "message"),
    [({"echo": 3}, "that is no alias"), ({"echo@stable": 0}, "no model version"), ("/no/such/folder", "no such model")],
)
def test_what_is_no_source_of_aliases_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Aliases(source)


class TestMoved:
    def test_a_moved_alias_is_followed_within_a_second(self, tmp_path: Path) -> None:
        clock = Clock()
        set_alias(tmp_path, "echo", "stable", Alias("echo", 1))
        routes = Router(Aliases(tmp_path, clock=clock))
        assert routes.named("echo@stable").version == "1"
        set_alias(tmp_path, "echo", "stable", Alias("echo", 2))
        clock.now_s += 0.5
        assert routes.named("echo@stable").version == "1"
        clock.now_s += 0.5
        assert routes.named("echo@stable").version == "2"

    def test_aliases_may_come_later(self, tmp_path: Path) -> None:
        clock = Clock()
        routes = Router(Aliases(tmp_path, clock=clock))
        with pytest.raises(ModelNotFound):
            routes.named("echo@stable")
        set_alias(tmp_path, "echo", "stable", Alias("echo", 2))
        clock.now_s += 1.0
        assert routes.named("echo@stable").version == "2"

    def test_a_file_that_breaks_leaves_the_last_good(self, tmp_path: Path) -> None:
        clock = Clock()
        set_alias(tmp_path, "echo", "stable", Alias("echo", 2))
        routes = Router(Aliases(tmp_path, clock=clock))
        (tmp_path / ledger.LEDGER_FILE).write_text("{")
        clock.now_s += 1.0
        with pytest.warns(RuntimeWarning, match="stay as they were"):
            assert routes.named("echo@stable").version == "2"
        clock.now_s += 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is told once
            assert routes.named("echo@stable").version == "2"


class TestWeights:
    def test_a_canary_gets_its_share_of_the_requests(self) -> None:
        routes = Router(Aliases(CANARY, rng=random.Random(7)))
        met = Counter(routes.choose("echo").model for _ in range(10_000))
        assert met == Counter({"echo": 9017, "echo.v2": 983})

    @pytest.mark.parametrize(
        ("drawn", "model", "canary"), [(0.0, "echo.v2", "canary"), (0.099, "echo.v2", "canary"), (0.1, "echo", "")]
    )
    def test_the_draw_decides(self, drawn: float, model: str, canary: str) -> None:
        route = router(CANARY, drawn).choose("echo")
        assert (route.model, route.canary) == (model, canary)

    @pytest.mark.parametrize(("drawn", "version"), [(0.0, "2"), (0.29, "2"), (0.31, "3"), (0.59, "3"), (0.61, "")])
    def test_two_canaries_share(self, drawn: float, version: str) -> None:
        two = {"echo@a": Alias("echo", 2, weight=0.3), "echo@b": Alias("echo", 3, weight=0.3)}
        assert router(two, drawn).choose("echo").version == version

    @pytest.mark.parametrize(("name", "version"), [("echo", "1"), ("echo@stable", ""), ("other", "")])
    def test_a_request_that_names_its_version_is_left_alone(self, name: str, version: str) -> None:
        assert router(CANARY, drawn=0.0).choose(name, version).canary == ""


class TestSticky:
    def test_a_key_meets_the_same_version_each_time_and_everywhere(self) -> None:
        keys = [f"user {n}" for n in range(2_000)]
        here, there = (
            {k: Router(Aliases(CANARY, rng=random.Random(seed))).choose("echo", sticky_key=k).model for k in keys}
            for seed in (1, 2)
        )
        assert here == there
        assert 0.08 < Counter(here.values())["echo.v2"] / len(keys) < 0.12

    def test_as_the_weight_grows_keys_only_move_to_the_canary(self) -> None:
        keys = [f"user {n}" for n in range(500)]
        small, large = (
            {k for k in keys if router({"echo@canary": Alias("echo", 2, w)}).choose("echo", sticky_key=k).canary}
            for w in (0.1, 0.4)
        )
        assert set() < small < large

    def test_models_draw_their_users_apart(self) -> None:
        both = {"echo@canary": Alias("echo", 2, 0.5), "other@canary": Alias("other", 2, 0.5)}
        keys = [f"user {n}" for n in range(100)]
        met = [{k for k in keys if router(both).choose(m, sticky_key=k).canary} for m in ("echo", "other")]
        assert met[0] != met[1]


UNKNOWN = Refused("Request for unknown model: 'echo.v2' is not found", "404")
NOT_READY = Refused("Request for unknown model: 'echo.v2' has no available versions", "404")
REFUSES = Refused("[request id: <id_unknown>] expected 2 inputs but got 1 inputs for model 'echo.v2'", "400")


def served(*infer: Any, config: Any = ECHO_CONFIG) -> ScriptedServer:
    index = [{"name": "echo", "version": "1", "state": "READY"}]
    return ScriptedServer({"get_model_config": [config], "infer": list(infer), "get_model_repository_index": [index]})


def ask(server: ScriptedServer, asked: Inference, model: str = "echo") -> Any:
    return server.run(asked.infer(Question(model, None, {"text": "a"}), None))


def models(server: ScriptedServer) -> list[tuple[str, str]]:
    requests = [send.operation.inference for send in server.sent]
    return [(r.model, r.version) for r in requests if r is not None]


class TestFallback:
    @pytest.mark.parametrize("error", [UNKNOWN, NOT_READY, REFUSES])
    def test_a_canary_that_cannot_answer_is_passed_over_and_told_once(self, error: Exception) -> None:
        def answer(send: Any) -> Any:
            if send.operation.inference.model == "echo.v2":
                raise error
            return {"text": "fine"}

        server = served(answer)
        exchange = Inference("http://a", clock=server.clock, aliases=Aliases(CANARY, rng=Draws(0.0)))
        with pytest.warns(CanaryPassedOver, match="echo@canary is passed over") as told:
            answers = [ask(server, exchange), ask(server, exchange)]
        assert answers == [{"text": "fine"}] * 2
        assert len(told) == 1
        assert models(server) == [("echo.v2", "2"), ("echo", ""), ("echo.v2", "2"), ("echo", "")]

    def test_a_canary_that_was_taken_back_is_nothing_to_warn_of(self, tmp_path: Path) -> None:
        set_alias(tmp_path, "echo", "canary", Alias("echo.v2", 2, weight=1.0))
        server = served(UNKNOWN, {"text": "fine"})
        exchange = Inference("http://a", clock=server.clock, aliases=tmp_path)
        set_alias(tmp_path, "echo", "canary", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ask(server, exchange) == {"text": "fine"}

    def test_a_request_that_neither_takes_gets_the_models_own_error(self) -> None:
        server = served(UNKNOWN, Refused("bad", "400"))
        exchange = Inference("http://a", clock=server.clock, aliases=Aliases(CANARY, rng=Draws(0.0)))
        with pytest.warns(CanaryPassedOver), pytest.raises(InvalidInput, match="refuses"):
            ask(server, exchange)

    def test_a_canary_that_fails_is_an_answer(self) -> None:
        server = served(Refused("the model refused", "500"))
        exchange = Inference("http://a", clock=server.clock, aliases=Aliases(CANARY, rng=Draws(0.0)))
        with pytest.raises(InferenceFailed):
            ask(server, exchange)
        assert models(server) == [("echo.v2", "2")]


class TestNamedAlias:
    def test_an_alias_that_was_asked_for_is_not_passed_over(self) -> None:
        server = served(UNKNOWN)
        exchange = Inference("http://a", clock=server.clock, aliases=CANARY)
        with pytest.raises(ModelNotFound) as met:
            ask(server, exchange, "echo@canary")
        assert "echo@canary stands for echo.v2 version 2" in str(met.value)
        assert models(server) == [("echo.v2", "2")]

    def test_an_alias_that_moved_meanwhile_is_followed_at_once(self, tmp_path: Path) -> None:
        set_alias(tmp_path, "echo", "stable", Alias("echo", 1))
        server = served(Refused("Request for unknown model: 'echo' version 1 is not at ready state", "400"), {"y": 1})
        exchange = Inference("http://a", clock=server.clock, aliases=tmp_path)
        set_alias(tmp_path, "echo", "stable", Alias("echo", 2))
        assert ask(server, exchange, "echo@stable") == {"y": 1}
        assert models(server) == [("echo", "1"), ("echo", "2")]

    @pytest.mark.parametrize(
        ("call", "method"),
        [
            (lambda e: e.ready("echo@canary", None, None), "is_model_ready"),
            (lambda e: e.metadata("echo@canary", None, None), "get_model_config"),
            (lambda e: e.statistics("echo@canary", None, None), "get_inference_statistics"),
        ],
    )
    def test_descriptions_take_aliases_too(self, call: Any, method: str) -> None:
        server = ScriptedServer(
            {
                "is_model_ready": [True],
                "get_model_config": [ECHO_CONFIG],
                "get_model_metadata": [{"name": "echo.v2"}],
                "get_inference_statistics": [{}],
            }
        )
        server.run(call(Inference("http://a", clock=server.clock, aliases=CANARY)))
        assert server.sent[0].operation.method == method
        assert server.sent[0].operation.arguments == {"model_name": "echo.v2", "model_version": "2"}

    def test_a_version_that_is_not_served_names_the_alias(self) -> None:
        server = ScriptedServer(
            {
                "get_model_config": [Refused("Request for unknown model: 'echo' has no available versions", "400")],
                "get_model_repository_index": [[{"name": "echo", "version": "1", "state": "UNAVAILABLE"}]],
            }
        )
        with pytest.raises(ModelNotReady, match="echo@stable is not served"):
            ask(server, Inference("http://a", clock=server.clock, aliases=CANARY), "echo@stable")
