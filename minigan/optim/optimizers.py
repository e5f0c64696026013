"""SGD, RMSprop and Adam: how a gradient becomes a step. Names, settings and arithmetic are PyTorch's.

    adam = Adam(model.parameters(), lr=2e-4, betas=(0.5, 0.999))
    ...
    adam.zero_grad()       # backward adds to what is there: forget the gradients of the step before
    loss.backward()
    adam.step()

A step looks at `.grad` only. A parameter whose .grad is None stays as it is, and what the optimiser
remembers of it does too; one that has a gradient is changed, even if it was frozen meanwhile.

functional.py has the rules, as functions of Tensors; kernels/optim.py has them in the form that runs here.
Where the parameters live is in flat.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..backend import Array, get, to_numpy
from ..kernels import optim as kernels
from ..kernels.optim import Piece
from ..tensor import Tensor
from .flat import Flat

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]

Rate = float | Callable[[int], float]


class Optimizer:
    """What all optimisers have in common. Each defines `_update`, its rule.

    lr: the learning rate, a number, or a schedule: a function from the number of steps done so far, 0 at
    first, to a number (schedules.py). remembers: names of the arrays kept for each parameter.

    lr and the other settings are attributes, and may be changed between steps. (But whether there is a
    momentum at all, and `centered`, are decided at the start: they need memory.)
    """

    def __init__(self, params: Iterable[Tensor], lr: Rate, remembers: Sequence[str]):
        self.kind = type(self).__name__
        self.lr = lr
        self.flat = Flat(params, self.kind)
        self.steps_done = 0
        xp = get(self.flat.backend).xp
        # How many steps each parameter has made (those without a gradient sit out), and what is remembered
        # of it, in the order of its memory: arrays of one axis, which a step changes in place.
        self._counts = xp.zeros(len(self.params), np.int64)
        self._remembers = tuple(remembers)
        self._kept = [tuple(xp.zeros(p.size, p.dtype) for _ in remembers) for p in self.params]

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in the order they were given."""
        return self.flat.params

    @property
    def lr(self) -> float:
        """The learning rate of the next step. A number or a schedule can be assigned."""
        if callable(self._lr):
            step = self.steps_done
            return setting(f"{self.kind}: the schedule's rate at step {step}", self._lr(step))
        return self._lr

    @lr.setter
    def lr(self, value: Rate) -> None:
        self._lr = value if callable(value) else setting(f"{self.kind}: lr", value)

    def zero_grad(self) -> None:
        """Forget the gradients that `backward` has added up."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Change each parameter that has a gradient.

        If none has one, that is an error (PyTorch does nothing then): somebody forgot backward().
        """
        gradients: list[Any] = [p.grad for p in self.params]
        if all(g is None for g in gradients):
            raise ValueError(
                f"{self.kind}.step: no parameter has a gradient; call loss.backward() before, and not "
                "zero_grad() in between. Does the loss depend on these parameters?"
            )
        flat = self.flat
        flat.check(f"{self.kind}.step")
        lr = self.lr
        chosen = [i for i, g in enumerate(gradients) if g is not None]
        if len(chosen) == len(gradients):
            memory = flat.empty()
            self._counts += 1
        else:
            memory = None
            for i in chosen:  # not [chosen]: a GPU would have to be sent the list
                self._counts[i : i + 1] += 1
        pieces = [
            Piece(
                flat.line(self.params[i]._data, i),
                flat.line(gradients[i]._data, i),
                flat.part(memory, i),
                self._counts[i : i + 1],
                self._kept[i],
            )
            for i in chosen
        ]
        self._update(pieces, lr)
        flat.move_into({i: piece.new for i, piece in zip(chosen, pieces, strict=True)}, memory)
        self.steps_done += 1

    def _update(self, pieces: Sequence[Piece], lr: float) -> None:
        """Put the new value of each piece into its `new`, and change what is kept, in place."""
        raise NotImplementedError(f"{self.kind} has no rule; an Optimizer must define _update")

    def remembered(self, parameter: Tensor) -> tuple[int, dict[str, Array]]:
        """How many steps a parameter has made, and copies of what is kept for it: of Adam, "m" and "v"."""
        i = next((i for i, p in enumerate(self.params) if p is parameter), None)
        if i is None:
            raise ValueError(
                f"{self.kind}.remembered: this Tensor of shape {parameter.shape} is not one of its"
            )
        return int(self._counts[i]), {name: kept.copy() for name, kept in self._remembered(i)}

    def _remembered(self, i: int) -> list[tuple[str, Array]]:
        names = self._remembers
        return [(name, self.flat.shaped(kept, i)) for name, kept in zip(names, self._kept[i], strict=True)]

    @property
    def scheduled(self) -> bool:
        """Whether the learning rate follows a schedule."""
        return callable(self._lr)

    def settings(self) -> dict[str, Any]:
        """The kind and the options, for the record of a run. A schedule is told by some of its values."""
        public = {name: value for name, value in vars(self).items() if name[0] != "_"}
        del public["steps_done"], public["flat"]
        lr = {f"step {at}": self._lr(at) for at in (0, 100, 10_000)} if callable(self._lr) else self._lr
        return {**public, "lr": lr}

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, apart from the parameters, gradients and settings.

        Numbers and NumPy arrays under flat names: "steps_done", "counts" (of each parameter), and for
        each parameter what is remembered of it, in its shape: "m.0", "v.0", "m.1" ...
        The settings are what the program says they are, not part of the state: a schedule could not be.
        """
        state: dict[str, Any] = {
            "kind": self.kind,
            "steps_done": self.steps_done,
            "counts": np.array(to_numpy(self._counts)),
        }
        for i in range(len(self.params)):
            for name, kept in self._remembered(i):
                state[f"{name}.{i}"] = np.array(to_numpy(kept))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that state_dict gave. Nothing is changed unless everything fits."""
        here = self.state_dict()
        complaints = []
        if missing := [name for name in here if name not in state]:
            complaints.append(f"  missing: {', '.join(missing)}")
        if unexpected := [name for name in state if name not in here]:
            complaints.append(f"  unexpected: {', '.join(unexpected)}")
        values = {name: np.asarray(state[name]) for name in here if name in state}
        if "kind" in values and str(values["kind"]) != self.kind:
            complaints.insert(0, f"  it is the state of {values['kind']}")
        for name, value in values.items():
            shape = np.shape(here[name])
            if value.shape != shape:
                complaints.append(f"  wrong shape: {name} has {shape} here, {value.shape} in the state")
            elif value.dtype.kind not in "fiu" and name != "kind":
                complaints.append(f"  not numbers: {name} has dtype {value.dtype} in the state")
        if complaints:
            raise ValueError("\n".join([f"load_state_dict: does not fit this {self.kind}", *complaints]))
        self.steps_done = int(values["steps_done"])
        put = get(self.flat.backend).from_numpy
        self._counts[...] = put(values["counts"].astype(np.int64))
        for i in range(len(self.params)):
            for name, kept in self._remembered(i):
                kept[...] = put(values[f"{name}.{i}"].astype(self.flat.dtype))

    def __repr__(self) -> str:
        names = [name for name in vars(self) if name[0] != "_" and name not in ("kind", "steps_done", "flat")]
        shown = [f"{name}={getattr(self, name)}" for name in names]
        return f"{self.kind}({', '.join([f'{len(self.params)} parameters', f'lr={self.lr}', *shown])})"


class SGD(Optimizer):
    """p ← p - η g, with momentum μ:  b ← μ b + (1 - dampening) g,  p ← p - η b

    nesterov: p ← p - η (g + μ b). weight_decay λ adds λ p to the gradient.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> sgd = SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> sgd.step()
    >>> w.data
    array([0.8, 1.6])
    """

    def __init__(
        self, params: Iterable[Tensor], lr: Rate, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ):  # fmt: skip
        self.momentum = setting("SGD: momentum", momentum)
        self.dampening = setting("SGD: dampening", dampening)
        self.weight_decay = setting("SGD: weight_decay", weight_decay)
        self.nesterov = nesterov
        if nesterov and (not self.momentum or self.dampening):
            raise ValueError("SGD: nesterov=True needs a momentum above 0, and no dampening")
        super().__init__(params, lr, ["momentum"] if self.momentum else [])

    def _update(self, pieces: Sequence[Piece], lr: float) -> None:
        kernels.sgd(pieces, lr, self.momentum, self.dampening, self.weight_decay, self.nesterov)


class RMSprop(Optimizer):
    """v ← α v + (1 - α) g²        p ← p - η g / (√v + ε)

    Each entry is divided by the size that its gradient usually has. centered: by its standard deviation,
    √(v - mean²), with a mean of g that is kept like v. momentum μ: b ← μ b + g / (√v + ε), p ← p - η b.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: Rate = 0.01, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
    ):  # fmt: skip
        self.alpha = setting("RMSprop: alpha", alpha, below=1)
        self.eps = setting("RMSprop: eps", eps)
        self.weight_decay = setting("RMSprop: weight_decay", weight_decay)
        self.momentum = setting("RMSprop: momentum", momentum)
        self.centered = centered
        super().__init__(params, lr, ["v", *["mean"] * centered, *["momentum"] * bool(self.momentum)])

    def _update(self, pieces: Sequence[Piece], lr: float) -> None:
        kernels.rmsprop(pieces, lr, self.alpha, self.eps, self.weight_decay, self.momentum, self.centered)


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²        p ← p - η m̂ / (√v̂ + ε)

    Kingma and Ba 2015. m̂ and v̂ are m and v, corrected for having begun at zero. GANs are usually trained
    with a smaller β₁ than the usual 0.9; schedules.py has the settings of some papers.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> adam = Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> adam.step()
    >>> w.data
    array([0.9, 1.9])
    """

    _decoupled = False

    def __init__(
        self, params: Iterable[Tensor], lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ):  # fmt: skip
        who = type(self).__name__
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise ValueError(f"{who}: betas={betas!r}; give two numbers, as in betas=(0.5, 0.999)")
        self.betas = (setting(f"{who}: β₁", betas[0], below=1), setting(f"{who}: β₂", betas[1], below=1))
        self.eps = setting(f"{who}: eps", eps)
        self.weight_decay = setting(f"{who}: weight_decay", weight_decay)
        super().__init__(params, lr, ["m", "v"])

    def _update(self, pieces: Sequence[Piece], lr: float) -> None:
        kernels.adam(pieces, lr, *self.betas, self.eps, self.weight_decay, self._decoupled)


class AdamW(Adam):
    """Adam, but weight decay shrinks p itself, p ← (1 - η λ) p, and not by way of the gradient

    Loshchilov and Hutter 2019.
    """

    _decoupled = True

    def __init__(
        self, params: Iterable[Tensor], lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.01,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)


def setting(what: str, value: Any, below: float = math.inf) -> float:
    """A setting as a plain number: 0 or more, and less than `below`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, not {value!r}") from None
    if not 0 <= number < below:
        limit = "0 or more" if below == math.inf else f"from 0 to just under {below}"
        raise ValueError(f"{what} must be {limit}, not {number}")
    return number
