"""Activation functions as Modules, for use in Sequential. The formulas are in ops/elementwise.py.

The settings are PyTorch's, its default values included.
"""

from __future__ import annotations

from typing import Any

from ..ops import elementwise, reduce
from ..tensor import Tensor
from .module import Layer

__all__ = ["ELU", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Layer):
    """y = max(x, 0)"""

    def forward(self, x: Any) -> Tensor:
        return elementwise.relu(x)


class LeakyReLU(Layer):
    """y = x where x > 0, else negative_slope · x. (Most GANs want 0.2, not this default.)

    >>> LeakyReLU(0.2)
    LeakyReLU(negative_slope=0.2)
    """

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return elementwise.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Layer):
    """y = x where x > 0, else alpha (eˣ - 1)"""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return elementwise.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class SiLU(Layer):
    """y = x σ(x)"""

    def forward(self, x: Any) -> Tensor:
        return elementwise.silu(x)


class Tanh(Layer):
    """y = tanh x"""

    def forward(self, x: Any) -> Tensor:
        return elementwise.tanh(x)


class Sigmoid(Layer):
    """y = 1 / (1 + e⁻ˣ). (A discriminator is better off without: the losses take logits.)"""

    def forward(self, x: Any) -> Tensor:
        return elementwise.sigmoid(x)


class Softplus(Layer):
    """y = log(1 + eˣ)"""

    def forward(self, x: Any) -> Tensor:
        return elementwise.softplus(x)


class Softmax(Layer):
    """y = eˣ / Σ eˣ, where the sum runs along the axis `dim`"""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return reduce.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
