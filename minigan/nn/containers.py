"""Modules made of Modules, and a Module made of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .module import Module

__all__ = ["Lambda", "Residual", "Sequential"]


class Sequential(Module):
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

    def __getitem__(self, i: int) -> Module:
        return list(self.children())[i]


class Lambda(Module):
    """A function without parameters as a Module: `Lambda(lambda x: x * 2)`."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def forward(self, *args: Any) -> Any:
        return self._function(*args)

    def extra_repr(self) -> str:
        return getattr(self._function, "__name__", repr(self._function))


class Residual(Module):
    """y = shortcut(x) + body(x): the body learns by how much y should differ from x (He et al. 2015)

    shortcut: a Module that gives x the shape of body(x), where that differs; otherwise x itself.
    """

    def __init__(self, body: Module, shortcut: Module | None = None):
        self.body = body
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        straight = self.shortcut(x) if "shortcut" in vars(self) else x
        if straight.shape != y.shape:
            raise ValueError(
                f"Residual: the body makes {y.shape}, the shortcut {straight.shape} from {x.shape}; give a "
                "shortcut (a 1×1 convolution, an Upsample ...) that makes the body's shape"
            )
        return straight + y
