"""Modules made of Modules, and a Module made of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .module import Layer, Module

__all__ = ["Lambda", "Residual", "Sequential"]


class Sequential(Layer):
    """One Module after the other. Its children are called "0", "1", ..."""

    def __init__(self, *modules: Module):
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(
                    f"Sequential: argument {i} is {module!r}, not a Module; wrap a function in Lambda"
                )
            setattr(self, str(i), module)

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, i: int | slice) -> Module:
        chosen = list(self.children())[i]
        return Sequential(*chosen) if isinstance(chosen, list) else chosen


class Lambda(Module):
    """A function without parameters as a Module: `Lambda(lambda x: x * 2)`."""

    def __init__(self, function: Callable[..., Any]):
        if isinstance(function, Module):
            raise TypeError(f"Lambda: {function!r} is a Module already, and its parameters would be hidden")
        self._function = function

    def forward(self, *args: Any) -> Any:
        return self._function(*args)

    def extra_repr(self) -> str:
        return getattr(self._function, "__name__", repr(self._function))


class Residual(Layer):
    """y = shortcut(x) + body(x): the body learns by how much y should differ from x (He et al. 2015)

    shortcut: a Module that gives x the shape of body(x), where that differs; otherwise x itself.
    """

    def __init__(self, body: Module, shortcut: Module | None = None):
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        straight = x if self.shortcut is None else self.shortcut(x)
        if straight.shape != y.shape:
            raise ValueError(
                f"Residual: the body makes {y.shape}, the shortcut {straight.shape} from {x.shape}; give a "
                "shortcut (a 1×1 convolution, an Upsample ...) that makes the body's shape"
            )
        return straight + y
