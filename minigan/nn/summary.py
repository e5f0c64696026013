"""A table of what a network is made of: shapes, parameters, work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from ..backend import Array
from ..tape import no_grad, observing
from ..tensor import Tensor
from .module import Module

__all__ = ["LayerRow", "Summary", "summary"]

Shape = tuple[int, ...]


@dataclass
class LayerRow:
    """One module of a network. What its children have and do is in their rows, not in this one.

    name: as in named_modules ("body.0"; "" is the network itself). shape: of the output, a list of shapes if
    there are several outputs, None if the module did not run or returned no Tensor. calls: how often it ran;
    the shape is that of the last time, the multiply-adds are those of all.
    """

    name: str
    kind: str
    shape: Shape | list[Shape] | None = None
    parameters: int = 0
    multiply_adds: int = 0
    calls: int = 0


@dataclass(frozen=True, repr=False)
class Summary:
    """The rows of the table, in the order of named_modules; the totals are their sums."""

    rows: list[LayerRow]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    def __repr__(self) -> str:
        return (
            f"Summary({len(self.rows)} modules, {self.parameters:,} parameters, "
            f"{self.multiply_adds:,} multiply-adds)"
        )

    def __str__(self) -> str:
        head = ["layer", "output shape", "parameters", "multiply-adds"]
        cells = [_cells(row) for row in self.rows]
        foot = ["total", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"]
        widths = [max(map(len, column)) for column in zip(head, *cells, foot, strict=True)]

        def line(row: list[str]) -> str:
            words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            return "  ".join(words + numbers).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([line(head), rule, *map(line, cells), rule, line(foot)])


def _cells(row: LayerRow) -> list[str]:
    """A row as text: children are indented, and what is 0 is left empty, so that the numbers stand out."""
    depth = row.name.count(".") + 1 if row.name else 0
    name = f"({row.name.rpartition('.')[2]}) " if row.name else ""
    times = f" x {row.calls}" if row.calls > 1 else ""
    several = isinstance(row.shape, list)
    shape = ", ".join(map(str, row.shape)) if several else str(row.shape)  # type: ignore[arg-type]
    numbers = [f"{n:,}" if n else "" for n in (row.parameters, row.multiply_adds)]
    return ["  " * depth + name + row.kind + times, "" if row.shape is None else shape, *numbers]


def summary(module: Module, *inputs: Any, show: bool = True, file: TextIO | None = None) -> Summary:
    """Run the module once and list its layers: output shape, parameters, multiply-adds. Changes nothing.

    inputs: what the module is called with: shapes, the batch N included, which stand for zeros; or arrays
    and Tensors, for instance whole numbers for an Embedding. show: print the table, to `file` or to the
    standard output. The run is one in eval mode, under no_grad().

    Multiply-adds are those of matrix products and convolutions, products with the zeros of padding and those
    for a spectral norm included. The rest (activations, sums, biases, einsum) is not counted. A parameter
    that is in two places is counted in the first.

    >>> from minigan import nn
    >>> g = nn.Sequential(nn.Linear(100, 256, rng=0), nn.Linear(256, 784, rng=0))
    >>> print(summary(g, (1, 100), show=False))
    layer         output shape  parameters  multiply-adds
    -----------------------------------------------------
    Sequential    (1, 784)
      (0) Linear  (1, 256)          25,856         25,600
      (1) Linear  (1, 784)         201,488        200,704
    -----------------------------------------------------
    total                          227,344        226,304
    """
    rows = {each: LayerRow(name, type(each).__name__) for name, each in module.named_modules()}
    left = set(module.parameters())
    for each, row in rows.items():
        own = {value for value in vars(each).values() if isinstance(value, Tensor)} & left
        row.parameters = sum(parameter.size for parameter in own)
        left -= own
    arguments = [_argument(value, i, module) for i, value in enumerate(inputs)]
    with _watched(rows), no_grad():
        module(*arguments)
    result = Summary(list(rows.values()))
    if show:
        print(result, file=file)
    return result


def _argument(value: Any, i: int, module: Module) -> Tensor:
    """An input of the run: zeros of a given shape, in the module's precision and on its backend."""
    like = next(iter(module.parameters()), None)
    backend = "numpy" if like is None else like.backend
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in value):
        return Tensor(np.zeros(value, "float32" if like is None else like.dtype), backend=backend)
    if not hasattr(value, "shape"):
        raise TypeError(
            f"summary: input {i} is {value!r}; give a shape with the batch in front, such as (1, 3, 64, 64), "
            "or an array"
        )
    return Tensor(value, backend=backend)


# ---------------------------------------------------------------------------- watching the run


class _Counter:
    """What the tape reports to (see draw.Trace): adds an op's multiply-adds to the module that is running."""

    def __init__(self) -> None:
        self.running: list[LayerRow] = []  # the module that runs, and those that called it

    def forward(self, name: str, data: Array, inputs: Sequence[Tensor]) -> None:
        count = _MULTIPLY_ADDS.get(name)
        if count is not None and self.running:
            self.running[-1].multiply_adds += count(data, *inputs[:2])  # a bias only adds

    def begin(self) -> None: ...

    def walking(self, step: int) -> None: ...

    def backward(self, node: Any, vjp: Any, g: Tensor, pull: Callable[..., Tensor]) -> Tensor:
        return pull(node, vjp, g)


# For each op: how many products of two numbers it adds up. w is a kernel (O, C/groups, KH, KW).
_MULTIPLY_ADDS: dict[str, Callable[..., int]] = {
    "linear": lambda y, x, w: y.size * x.shape[-1],
    "matmul": lambda c, a, b: c.size * a.shape[-1],
    "conv2d": lambda y, x, w: y.size * math.prod(w.shape[1:]),
    "conv_transpose2d": lambda x, y, w: y.size * math.prod(w.shape[1:]),
    "conv2d_weight": lambda w, x, y: y.size * math.prod(w.shape[1:]),
}


@contextmanager
def _watched(rows: dict[Module, LayerRow]) -> Iterator[None]:
    """Inside, the modules are in eval mode, and their rows are filled in as they run.

    Each module's `forward`, and what runs before it, is replaced by one that notes which module is running.
    In the end every module gets back all the attributes that it had.
    """
    counter = _Counter()
    before = {module: dict(vars(module)) for module in rows}
    token = observing.set(counter)
    try:
        for module, row in rows.items():
            module.training = False
            module._pre_hooks = tuple(_turn(hook, row, counter) for hook in module._pre_hooks)
            module.forward = _turn(_noted(module.forward, row), row, counter)  # type: ignore[method-assign]
        yield
    finally:
        observing.reset(token)
        for module, attributes in before.items():
            vars(module).clear()
            vars(module).update(attributes)


def _turn(function: Callable[..., Any], row: LayerRow, counter: _Counter) -> Callable[..., Any]:
    """The function, during which it is this row's turn."""

    def run(*args: Any, **kwargs: Any) -> Any:
        counter.running.append(row)
        try:
            return function(*args, **kwargs)
        finally:
            counter.running.pop()

    return run


def _noted(forward: Callable[..., Any], row: LayerRow) -> Callable[..., Any]:
    """forward, with a note of its output's shape and of the call."""

    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        row.calls += 1
        if isinstance(output, Tensor):
            row.shape = output.shape
        elif isinstance(output, (tuple, list)):
            row.shape = [each.shape for each in output if isinstance(each, Tensor)]
        return output

    return run
