"""Let a Module compute with other parameters for a while; these may be results of ops.

A parameter is a leaf, and a leaf has no history. But an unrolled GAN needs weights that have one: those of D
after its next step, as a function of the fakes that it is trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..tensor import Tensor
from .module import Module

__all__ = ["substituted"]


@contextmanager
def substituted(module: Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, `module` computes with values[name] in place of its parameter `name`.

    The names are those of `named_parameters`; parameters that are not mentioned stay. A parameter that is
    in several places is replaced in all of them. Gradients flow to the values, not to the parameters.

    Afterwards each Tensor of the module is the very one that was there before, also after an error: the
    parameters, the buffers that a forward replaces (running statistics), and weights that are computed
    (spectral_norm).

    >>> from minigan import nn
    >>> layer = nn.Linear(1, 1, bias=False, rng=0, dtype="float64")
    >>> w = Tensor([[2.0]], requires_grad=True)
    >>> with substituted(layer, {"weight": w * w}):
    ...     y = layer([[10.0]])
    >>> y.backward()
    >>> float(y), float(w.grad)
    (40.0, 40.0)
    """
    parameters = dict(module.named_parameters())
    for name, value in values.items():
        _check(type(module).__name__, parameters, name, value)
    instead = {id(parameters[name]): value for name, value in values.items()}
    before = [(m, name, t) for m in module.modules() for name, t in vars(m).items() if isinstance(t, Tensor)]
    try:
        for m, name, tensor in before:
            setattr(m, name, instead.get(id(tensor), tensor))
        yield
    finally:
        for m, name, tensor in before:
            setattr(m, name, tensor)


def _check(who: str, parameters: Mapping[str, Tensor], name: str, value: Tensor) -> None:
    if name not in parameters:
        known = ", ".join(parameters) or "none"
        raise ValueError(f"substituted: {who} has no parameter {name!r}; it has: {known}")
    if not isinstance(value, Tensor):
        raise TypeError(f"substituted: {name!r} is to be a {type(value).__name__}; give a Tensor")
    old = parameters[name]
    if (value.shape, value.dtype, value.backend) != (old.shape, old.dtype, old.backend):
        raise ValueError(
            f"substituted: {name!r} has shape {old.shape} in {old.dtype} on {old.backend}, its substitute "
            f"{value.shape} in {value.dtype} on {value.backend}; they must agree"
        )
