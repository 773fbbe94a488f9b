"""Answer the requests of one dynamic batch with one run of the model, and let a bad request fail alone.

Shared by the stand-in backends: each folder holds a link to this file. Knows arrays and names, neither Triton nor a
framework. This is the hot path: a served request passes through it once, so what can be prepared is prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The inputs of a request by name, and the outputs it wants, in the order in which it wants them.
Ask = tuple[dict[str, Array], list[str]]

# What requests must share to be run together: which inputs they have, and each one's shape but the batch.
Key = tuple[object, ...]

# So many forms of good requests are remembered: clients send few, and texts of every length are a few hundred.
KNOWN_FORMS = 1024

# Runs the model: (inputs by name, names of outputs) -> the outputs in that order. May raise anything.
Run = Callable[[dict[str, Array], list[str]], Sequence[Array]]

_WIRE_NAMES = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "STRING"}


@dataclass(frozen=True)
class RequestFailed:
    """Why one request has no answer; ``invalid`` when the request itself is wrong, and not the run."""

    message: str
    invalid: bool


@dataclass(frozen=True)
class ModelInput:
    """An input as the model takes it: ``shape`` is whole, the batch included; -1 stands for any size."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    optional: bool = False

    def describe(self) -> str:
        """What a person reads: ``x FP32 [any, 3]``."""
        return f"{self.name} {type_name(self.dtype)} [{', '.join('any' if d == -1 else str(d) for d in self.shape)}]"


def type_name(dtype: np.dtype[Any]) -> str:
    """The name of the type in config.pbtxt, without its TYPE_."""
    return _WIRE_NAMES.get(dtype.name, dtype.name.upper())


def describe_array(name: str, array: Array) -> str:
    """What a person reads: ``x FP32 [2, 3]``."""
    return f"{name} {type_name(array.dtype)} {list(array.shape)}"


class Batcher:
    """Turns lists of requests into runs of the model.

    Requests whose inputs differ in anything but the batch size run apart. When a run of several fails, each of them
    runs alone, so that only the guilty ones fail.
    """

    def __init__(self, inputs: Sequence[ModelInput], outputs: Sequence[str], run: Run, *, batched: bool) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._known_outputs = frozenset(outputs)
        self._run = run
        self._batched = batched
        # Names, shapes and types of requests that were good, and their keys: most requests look as one before them.
        self._known_forms: dict[object, Key] = {}
        # (input, its name, type, rank, ((axis, size), ...) of the fixed axes): what `_problem` compares.
        self._checks = tuple(
            (spec, spec.name, spec.dtype, len(spec.shape), tuple((i, d) for i, d in enumerate(spec.shape) if d != -1))
            for spec in self._inputs
        )

    def answer(self, asks: Sequence[Ask]) -> list[list[Array] | RequestFailed]:
        """One answer a request, in order: its outputs in the order in which it wants them, or why there are none."""
        if len(asks) == 1:
            checked = self._check(*asks[0])
            return [checked if isinstance(checked, RequestFailed) else self._alone(*asks[0])]
        answers: list[list[Array] | RequestFailed | None] = [None] * len(asks)
        groups: dict[object, list[int]] = {}
        for index, (arrays, wanted) in enumerate(asks):
            checked = self._check(arrays, wanted)
            if isinstance(checked, RequestFailed):
                answers[index] = checked
            else:
                groups.setdefault(checked if self._batched else index, []).append(index)
        for members in groups.values():
            together = [asks[index] for index in members]
            for index, answer in zip(members, self._together(together), strict=True):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _check(self, arrays: Mapping[str, Array], wanted: Sequence[str]) -> Key | RequestFailed:
        """The key of a request, or what is wrong with it. Raises nothing."""
        if self._known_outputs.issuperset(wanted):
            of_all = arrays.values()
            form = (tuple(arrays), tuple([a.shape for a in of_all]), tuple([a.dtype for a in of_all]))
            key = self._known_forms.get(form)
            if key is not None:
                return key
            problem = self._problem(arrays, wanted)
            if problem is None:
                key = self._key(arrays)
                if len(self._known_forms) < KNOWN_FORMS:
                    self._known_forms[form] = key
                return key
            return problem
        return self._problem(arrays, wanted) or self._key(arrays)

    def _problem(self, arrays: Mapping[str, Array], wanted: Sequence[str]) -> RequestFailed | None:
        """What is wrong with a request, or None. Raises nothing."""
        seen = 0
        batch = None
        for spec, name, dtype, rank, fixed in self._checks:
            array = arrays.get(name)
            if array is None:
                if spec.optional:
                    continue
                return _invalid(f"input {name} is missing", ", ".join(arrays) or "no inputs", spec.describe())
            seen += 1
            shape = array.shape
            if array.dtype != dtype:
                return _invalid(f"input {name} has the wrong type", describe_array(name, array), spec.describe())
            if len(shape) != rank or any(shape[axis] != size for axis, size in fixed):
                return _invalid(f"input {name} has the wrong shape", describe_array(name, array), spec.describe())
            if self._batched:
                if batch is None:
                    batch = shape[0]
                elif shape[0] != batch:
                    got = ", ".join(describe_array(n, a) for n, a in arrays.items())
                    return _invalid("the inputs differ in batch size", got, "the same first dimension")
        if seen != len(arrays):
            unknown = ", ".join(set(arrays) - {spec.name for spec in self._inputs})
            return _invalid(f"the model has no input {unknown}", unknown, self._describe_inputs())
        for name in wanted:
            if name not in self._known_outputs:
                return _invalid(f"the model has no output {name}", name, "one of " + ", ".join(self._outputs))
        return None

    def _describe_inputs(self) -> str:
        return "; ".join(spec.describe() for spec in self._inputs)

    def _key(self, arrays: Mapping[str, Array]) -> Key:
        return tuple([arrays[spec.name].shape[1:] if spec.name in arrays else None for spec in self._inputs])

    def _alone(self, arrays: dict[str, Array], wanted: list[str]) -> list[Array] | RequestFailed:
        try:
            outputs = self._run(arrays, wanted)
            self._check_batch(wanted, outputs, _batch_size(arrays))
        except Exception as error:
            inputs = ", ".join(describe_array(name, array) for name, array in arrays.items())
            return RequestFailed(f"the model failed: {error}\n  got:      {inputs}", invalid=False)
        return list(outputs)

    def _together(self, asks: Sequence[Ask]) -> list[list[Array] | RequestFailed]:
        """Answer requests of one key, which have all been checked: as one batch, or each alone if that fails."""
        if len(asks) == 1:
            return [self._alone(*asks[0])]
        first, wanted = asks[0]
        if any(ask[1] != wanted for ask in asks):
            wanted = [name for name in self._outputs if any(name in ask[1] for ask in asks)]
        sizes = [_batch_size(arrays) for arrays, _ in asks]
        try:
            merged = {name: np.concatenate([arrays[name] for arrays, _ in asks]) for name in first}
            outputs = self._run(merged, wanted)
            self._check_batch(wanted, outputs, sum(sizes))
        except Exception:
            # Which request was at fault, and what it is told, shows when each runs by itself.
            return [self._alone(*ask) for ask in asks]
        by_name = dict(zip(wanted, outputs, strict=True))
        answers: list[list[Array] | RequestFailed] = []
        start = 0
        for (_, names), size in zip(asks, sizes, strict=True):
            answers.append([by_name[name][start : start + size] for name in names])
            start += size
        return answers

    def _check_batch(self, names: Sequence[str], outputs: Sequence[Array], size: int) -> None:
        """Raise ValueError unless every output has one entry an item: else it cannot be split, or only wrongly."""
        if not self._batched:
            return
        for name, output in zip(names, outputs, strict=True):
            if output.ndim == 0 or output.shape[0] != size:
                raise ValueError(
                    f"output {name} has shape {list(output.shape)}, expected {size} as its first dimension, "
                    "the batch size: the model does not keep the items of a batch apart"
                )


def _invalid(what: str, got: object, expected: object) -> RequestFailed:
    return RequestFailed(f"{what}\n  got:      {got}\n  expected: {expected}", invalid=True)


def _batch_size(arrays: Mapping[str, Array]) -> int:
    """The first dimension of any input (they agree); 0 for a scalar, which no batched model has."""
    for array in arrays.values():
        return int(array.shape[0]) if array.ndim else 0
    return 0
