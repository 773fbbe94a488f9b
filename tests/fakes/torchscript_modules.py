"""Tiny TorchScript modules, as the bytes of their files. Not every one of them can be served."""

# No `from __future__ import annotations`: torch.jit.script reads real types.
import io
from typing import Dict, List, Tuple  # noqa: UP035 - TorchScript knows these spellings in every release

import torch


class Combine(torch.nn.Module):
    """(a + 2 b, a - b): the order of the arguments shows."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
        return a + 2 * b, a - b


class Shout(torch.nn.Module):
    """Each text with a mark, and x unchanged."""

    def forward(self, texts: List[str], x: torch.Tensor) -> Tuple[List[str], torch.Tensor]:  # noqa: UP006
        return [text + "!" for text in texts], x


class FromDict(torch.nn.Module):
    """p - q, of a dict."""

    def forward(self, tensors: Dict[str, torch.Tensor]) -> torch.Tensor:  # noqa: UP006
        return tensors["p"] - tensors["q"]


class ToDict(torch.nn.Module):
    """What no pytorch backend gives."""

    def forward(self, x: torch.Tensor) -> Dict[str, torch.Tensor]:  # noqa: UP006
        return {"y": x}


class Lookup(torch.nn.Module):
    """table[x]: fails for an index beyond the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x]


class Half(torch.nn.Module):
    """x as FP16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.half()


class Mean(torch.nn.Module):
    """One number for the whole batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


class Same(torch.nn.Module):
    """y = x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class NineSame(torch.nn.Module):
    """Nine tensors, each as it came."""

    def forward(self, a, b, c, d, e, f, g, h, i):  # type: ignore[no-untyped-def]
        return a, b, c, d, e, f, g, h, i


def scripted(module: torch.nn.Module) -> bytes:
    """The file of a scripted module, in evaluation mode."""
    return file_of(torch.jit.script(module.eval()))


def traced_linear(weight: torch.Tensor) -> bytes:
    """The file of a traced y = x @ weight.T; forward's one argument is named ``input``."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False).eval()
    linear.weight = torch.nn.Parameter(weight)
    return file_of(torch.jit.trace(linear, torch.zeros(1, weight.shape[1])))


def file_of(module: torch.jit.ScriptModule) -> bytes:
    """The file of a module as it is."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()
