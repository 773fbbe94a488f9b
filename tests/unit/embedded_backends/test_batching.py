import numpy as np
import pytest
from conch_batching import Batcher, ModelInput, RequestFailed

FP32 = np.dtype(np.float32)
X = ModelInput("x", FP32, (-1, -1))


class Double:
    """A model: y = 2x, n = the items in the run. Keeps the batch size of each run, fails for negatives."""

    def __init__(self):
        self.runs = []

    def __call__(self, arrays, wanted):
        x = arrays["x"]
        self.runs.append(len(x))
        if (x < 0).any():
            raise RuntimeError("negative")
        outputs = {"y": 2 * x, "n": np.full((len(x), 1), len(x))}
        return [outputs[name] for name in wanted]


@pytest.fixture
def model():
    return Double()


@pytest.fixture
def batcher(model):
    return Batcher([X], ["y", "n"], model, batched=True)


def ask(*rows, wanted=("y",), dtype=np.float32):
    return {"x": np.array(rows, dtype)}, list(wanted)


def test_one_request_runs_alone(batcher, model):
    ((y,),) = batcher.answer([ask([1, 2])])
    assert y.tolist() == [[2, 4]]
    assert model.runs == [1]


def test_requests_of_one_shape_run_once_and_are_split(batcher, model):
    answers = batcher.answer([ask([1, 2]), ask([3, 4], [5, 6]), ask([7, 8])])
    assert [y.tolist() for (y,) in answers] == [[[2, 4]], [[6, 8], [10, 12]], [[14, 16]]]
    assert model.runs == [4]


def test_requests_of_other_shapes_run_in_groups(batcher, model):
    answers = batcher.answer([ask([1, 2]), ask([3]), ask([4, 5]), ask([6])])
    assert [y.tolist() for (y,) in answers] == [[[2, 4]], [[6]], [[8, 10]], [[12]]]
    assert model.runs == [2, 2]


def test_without_a_batch_dimension_every_request_runs_alone(model):
    batcher = Batcher([X], ["y"], model, batched=False)
    assert [y.tolist() for (y,) in batcher.answer([ask([1]), ask([2])])] == [[[2]], [[4]]]
    assert model.runs == [1, 1]


def test_outputs_come_in_the_order_and_choice_of_each_request(batcher, model):
    answers = batcher.answer([ask([1], wanted=["y"]), ask([2], wanted=["n", "y"]), ask([3], wanted=["n"])])
    assert [[array.tolist() for array in answer] for answer in answers] == [[[[2]]], [[[3]], [[4]]], [[[3]]]]
    assert model.runs == [3]


def test_a_request_that_makes_the_run_fail_fails_alone(batcher, model):
    good, bad, other = batcher.answer([ask([1]), ask([-2]), ask([3])])
    assert (good[0].tolist(), other[0].tolist()) == ([[2]], [[6]])
    assert isinstance(bad, RequestFailed)
    assert "negative" in bad.message
    assert "x FP32 [1, 1]" in bad.message
    assert not bad.invalid
    assert model.runs == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((1, 4), np.float32)}, ["input x has the wrong shape", "x FP32 [1, 4]", "x FP32 [any, 3]"]),
        ({"x": np.zeros(3, np.float32)}, ["input x has the wrong shape", "x FP32 [3]", "x FP32 [any, 3]"]),
        ({"x": np.zeros((1, 3))}, ["input x has the wrong type", "x FP64 [1, 3]", "x FP32 [any, 3]"]),
        ({}, ["input x is missing", "no inputs", "x FP32 [any, 3]"]),
        (
            {"x": np.zeros((1, 3), np.float32), "z": np.zeros((1, 3), np.float32)},
            ["no input z", "x FP32 [any, 3]"],
        ),
    ],
)
def test_a_wrong_request_fails_alone_and_is_told_what_is_wrong(model, arrays, words):
    batcher = Batcher([ModelInput("x", FP32, (-1, 3))], ["y"], model, batched=True)
    good, bad, other = batcher.answer([ask([1, 2, 3]), (arrays, ["y"]), ask([4, 5, 6])])
    assert good[0].tolist() == [[2, 4, 6]]
    assert other[0].tolist() == [[8, 10, 12]]
    assert isinstance(bad, RequestFailed)
    assert bad.invalid
    assert all(word in bad.message for word in words), bad.message
    assert model.runs == [2]


def test_an_unknown_output_fails_alone(batcher):
    good, bad = batcher.answer([ask([1]), ask([2], wanted=["y", "q"])])
    assert good[0].tolist() == [[2]]
    assert bad == RequestFailed("the model has no output q\n  got:      q\n  expected: one of y, n", invalid=True)


def test_inputs_of_one_request_must_agree_in_batch_size(model):
    batcher = Batcher([X, ModelInput("z", FP32, (-1, -1))], ["y"], model, batched=True)
    (bad,) = batcher.answer([({"x": np.zeros((1, 1), np.float32), "z": np.zeros((2, 1), np.float32)}, ["y"])])
    assert isinstance(bad, RequestFailed)
    assert "x FP32 [1, 1], z FP32 [2, 1]" in bad.message


def test_requests_with_and_without_an_optional_input_run_apart():
    seen = []

    def run(arrays, wanted):
        seen.append(sorted(arrays))
        return [arrays["x"]]

    batcher = Batcher([X, ModelInput("z", FP32, (-1, 1), optional=True)], ["y"], run, batched=True)
    one = np.ones((1, 1), np.float32)
    batcher.answer([({"x": one}, ["y"]), ({"x": one, "z": one}, ["y"]), ({"x": one}, ["y"])])
    assert seen == [["x"], ["x", "z"]]


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_that_mixes_the_items_of_a_batch_is_found_out(count):
    batcher = Batcher([X], ["y"], lambda arrays, wanted: [np.zeros((5, 1))], batched=True)
    answers = batcher.answer([ask([1])] * count)
    assert all(isinstance(answer, RequestFailed) for answer in answers)
    assert all("output y has shape [5, 1], expected 1 as its first dimension" in a.message for a in answers)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (ask([1, 2], dtype=np.float64), "wrong type"),
        (({"x": np.zeros(2, np.float32)}, ["y"]), "wrong shape"),
        (({"z": np.zeros((1, 2), np.float32)}, ["y"]), "is missing"),
        (({"x": np.zeros((1, 2), np.float32), "z": np.zeros((1, 2), np.float32)}, ["y"]), "no input z"),
        (ask([1, 2], wanted=["w"]), "no output w"),
    ],
)
def test_a_good_request_before_it_hides_nothing_of_a_bad_one(batcher, bad, told):
    batcher.answer([ask([1, 2])])
    good, refused, other = batcher.answer([ask([1, 2]), bad, ask([3, 4])])
    assert isinstance(refused, RequestFailed)
    assert told in refused.message
    assert [good[0].tolist(), other[0].tolist()] == [[[2, 4]], [[6, 8]]]


def test_what_is_remembered_of_requests_does_not_grow_for_ever(batcher, monkeypatch):
    monkeypatch.setattr("conch_batching.KNOWN_FORMS", 3)
    answers = [batcher.answer([ask([1.0] * length), ask([2.0] * length)]) for length in range(1, 9)]
    assert [[y.tolist() for (y,) in pair] for pair in answers] == [
        [[[2.0] * length], [[4.0] * length]] for length in range(1, 9)
    ]
    assert len(batcher._known_forms) == 3
