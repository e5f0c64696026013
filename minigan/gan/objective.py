"""What all losses have in common: the op they are made of, and the methods that a step calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from ..backend import Array
from ..kernels import device
from ..ops.elementwise import masked
from ..ops.operands import tensor
from ..ops.shape import broadcast_to
from ..tensor import Tensor, constant, is_recording, no_grad, record

__all__ = ["Curve", "Loss", "objective", "positive"]

Curve = Callable[[Tensor], Any]  # a function of each logit by itself: its value there, or its slope
Row = tuple[Tensor, Curve, Curve]
Soft = tuple[float, float, float]


def objective(name: str, *rows: Row, soft: Sequence[Soft] | None = None) -> Tensor:
    """L = Σ over the rows of mean value(l)        l̄ = L̄ slope(l) / n

    Each row is (logits l, value, slope). To the tape this is one op called `name`: the values leave no
    history. The slopes are made of Tensor ops, so the gradient can be differentiated as often as you like.
    A slope that is the same everywhere may be a plain number; one that is 1 or 0, a Tensor of booleans.

    soft: the same once more for a GPU, which computes it in one launch: a, b, c of each row whose value is
    c softplus(a l) + b l.
    """
    rows = tuple((tensor(logits, name), value, slope) for logits, value, slope in rows)
    slopes: list[Array | None] = [None] * len(rows)
    one_dtype = len({logits.dtype for logits, _, _ in rows}) == 1
    if soft and one_dtype and (fused := device.of(rows[0][0].data)) is not None:
        numbers = zip(rows, soft, strict=True)
        loss, slopes = fused.softplus_means([(row[0].data, *abc) for row, abc in numbers])
    else:
        with no_grad():
            loss = reduce(add, [value(logits).mean() for logits, value, _ in rows]).data

    def edge(logits: Tensor, slope: Curve, known: Array | None) -> Any:
        def vjp(g: Tensor) -> Tensor:
            if known is not None and not is_recording():
                return constant(g.data * known)
            g, s = g * (1 / logits.size), slope(logits)
            part = masked(g, s.data) if isinstance(s, Tensor) and s.dtype == bool else g * s
            return broadcast_to(part, logits.shape)

        return logits, vjp

    edges = [edge(logits, slope, known) for (logits, _, slope), known in zip(rows, slopes, strict=True)]
    return record(name, loss, *edges)


def positive(x: Tensor) -> Tensor:
    """Where relu has slope 1, as booleans; elsewhere it is 0. It is flat, so to the tape it is a constant."""
    return constant(~(x.data <= 0))


@dataclass
class Loss:
    """What all losses have in common. A subclass defines `discriminator` and `generator`, to be minimised."""

    name: ClassVar[str] = ""  # on the command line
    needs_real: ClassVar[bool] = False  # does G's loss look at the logits of real images, too?
    has_discriminator: ClassVar[bool] = True

    @property
    def zero_sum(self) -> bool:
        """Is L_G = -L_D, but for what D says of real images? G leaves that out, as it cannot change it."""
        return False

    @property
    def undecided(self) -> float | None:
        """The logit that the best D gives every image when fakes are like real ones; None: no single one."""
        return None

    @property
    def equilibrium(self) -> tuple[float, float] | None:
        """L_D and L_G when fakes are like real images: where training would end if all went well."""
        if self.undecided is None:
            return None
        logits = Tensor([self.undecided])
        return float(self.discriminator(logits, logits)), float(self.generator(logits, logits))

    def judge(self, d: Any, x: Tensor) -> Tensor:
        """What the losses are given for images x: D's logits."""
        return d(x)

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """L_D, a single number."""
        raise NotImplementedError(
            f"{type(self).__name__} must define discriminator(real_logits, fake_logits)"
        )

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """L_G, a single number."""
        raise NotImplementedError(f"{type(self).__name__} must define generator(fake_logits, real_logits)")

    def belief(self, logits: Tensor) -> Array:
        """What D thinks of these images, for people to read: here the mean logit, 0-d, without history."""
        return logits.detach().mean().data

    def beliefs(self, *several: Tensor) -> list[Array]:
        """`belief` of each of these batches."""
        return [self.belief(logits) for logits in several]

    def after_discriminator_step(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """A chance to adjust something between the steps. Most losses have nothing to adjust."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """What the loss remembers between the steps: mostly nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        mine = self.state_dict()
        if set(state) != set(mine):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: the state has {sorted(state)}, but this loss "
                f"remembers {sorted(mine)}; was it saved with another loss?"
            )

    def settings(self) -> dict[str, Any]:
        """The name and the options, as JSON can hold them. `loss(**settings)` makes the same loss again."""
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}

    def _real(self, real_logits: Tensor | None) -> Tensor:
        if real_logits is None:
            raise ValueError(
                f"{type(self).__name__}.generator: it compares fakes with real images; give real_logits, too"
            )
        return real_logits
