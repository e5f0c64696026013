"""The table of layers: for each one, how it is made, and which inputs it takes.

Hypothesis draws a `Case`: the settings of a layer, and an `X` (see ops_table.py) for each input. A seed
then settles the values: those of the parameters, and those of the inputs, from the X's domain. The tests
over the table are in test_layers.py.

A new layer needs one `Line` in LAYERS. Where that does not fit, say in ELSEWHERE which file tests it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from ops_table import X, anywhere, between, distinct, spread

import minigan as mg
from minigan import nn
from minigan.testing import strategies as mst

# Layers whose tests are in test_layers_gan.py.
ELSEWHERE = {"MinibatchDiscrimination", "MinibatchStdDev", "SelfAttention"}


@dataclass(frozen=True)
class Case:
    """A layer with certain settings, and the shapes of its inputs.

    make: (generator) -> Module. The first input is a batch: its first axis counts examples.
    """

    make: Callable[[np.random.Generator], nn.Module]
    inputs: tuple[X, ...]

    def __repr__(self) -> str:
        return f"{self.layer(0)!r} on {', '.join(map(repr, self.inputs))}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # how Hypothesis shows it
        printer.text(repr(self))

    def layer(self, seed: int, backend: str = "numpy", dtype: str = "float64") -> nn.Module:
        """The layer as it is made, on a backend and in a precision."""
        return self.make(np.random.default_rng(seed)).to(backend, dtype)

    def used(self, seed: int, backend: str = "numpy", dtype: str = "float64") -> nn.Module:
        """The layer when it has been in use: no weight is 1 and no bias 0, running averages have moved."""
        layer, rng = self.layer(seed, backend, dtype), np.random.default_rng([seed, 1])
        for parameter in layer.parameters():
            factor, shift = rng.uniform(0.5, 1.5, parameter.shape), rng.uniform(-0.3, 0.3, parameter.shape)
            parameter.data = parameter.numpy() * factor + shift
        with mg.no_grad():
            layer(*self.tensors(seed + 1, backend, dtype))
        return layer

    def values(self, seed: int) -> list[np.ndarray]:
        """An array for every input."""
        rng = np.random.default_rng([seed, 2])
        return [np.asarray(x.domain(rng, x.shape)) for x in self.inputs]

    def tensors(self, seed: int, backend: str = "numpy", dtype: str = "float64") -> list[mg.Tensor]:
        """The same as Tensors: leaves where gradients flow."""
        arrays = (v.astype(dtype) if v.dtype.kind == "f" else v for v in self.values(seed))
        both = zip(arrays, self.inputs, strict=True)
        return [mg.Tensor(v, requires_grad=x.grad, backend=backend) for v, x in both]


@dataclass(frozen=True)
class Line:
    """A line of the table. two_modes: training differs from evaluation; there, examples may meet."""

    layer: type[nn.Module]
    cases: st.SearchStrategy[Case]
    two_modes: bool = False

    @property
    def name(self) -> str:
        return self.layer.__name__


# ------------------------------------------------------------------ drawing settings and shapes

sides = st.integers(1, 3)
batches = st.tuples(st.integers(1, 3))  # (N,), one example included
flags = st.booleans()


def labels(n):
    def below(rng, shape):
        return rng.integers(0, n, shape)

    return below


@st.composite
def elementwise(draw, layer, domain=anywhere, **settings):
    """A layer that takes any shape."""
    drawn = {name: draw(strategy) for name, strategy in settings.items()}
    shape = draw(batches) + draw(mst.shapes(max_dims=3, min_side=1, max_side=3))
    return Case(lambda rng: layer(**drawn), (X(shape, domain),))


@st.composite
def linears(draw, layer):
    n, m, lead = draw(sides), draw(sides), draw(batches) + draw(st.sampled_from([(), (), (2,)]))
    if layer is nn.Maxout:
        pieces = draw(sides)
        return Case(lambda rng: layer(n, m, pieces, rng=rng), (X((*lead, n)),))
    bias = draw(flags)
    return Case(lambda rng: layer(n, m, bias=bias, rng=rng), (X((*lead, n)),))


@st.composite
def embeddings(draw):
    n, m = draw(sides), draw(sides)
    shape = draw(batches) + draw(st.sampled_from([(), (2,)]))
    return Case(lambda rng: nn.Embedding(n, m, rng=rng), (X(shape, labels(n), grad=False),))


@st.composite
def convolutions(draw, layer, axes, transposed=False):
    how, bias = draw(mst.conv_settings()), draw(flags)
    pick = (lambda pair: pair[1]) if axes == 1 else (lambda pair: pair)
    names = ["stride", "padding", "dilation", *["output_padding"] * transposed]
    options = {name: pick(getattr(how, name)) for name in names}
    shape, ends = how.x_shape, (how.channels, how.filters)
    if transposed:
        shape, ends = how.y_shape, ends[::-1]

    def make(rng):
        return layer(*ends, pick(how.kernel), groups=how.groups, bias=bias, rng=rng, **options)

    return Case(make, (X((*shape[:2], *shape[-axes:])),))


@st.composite
def batch_norms(draw, layer, rests):
    """Three values per channel or more: of two, whatever they are, one becomes -1 and the other 1."""
    rest = draw(rests)
    n, c = draw(st.integers(1 if np.prod(rest) > 2 else 3, 4)), draw(sides)
    momentum, eps = draw(st.sampled_from([0.1, 0.3, None])), draw(st.sampled_from([1e-5, 0.1]))
    image = X((n, c, *rest), spread if n > 1 else distinct)
    if layer is nn.ConditionalBatchNorm:
        k = draw(sides)
        make = lambda rng: layer(c, k, eps, momentum)
        return Case(make, (image, X((n,), labels(k), grad=False)))
    affine = draw(flags)
    return Case(lambda rng: layer(c, eps, momentum, affine), (image,))


@st.composite
def layer_norms(draw):
    last = draw(st.sampled_from([(3,), (5,), (1, 3), (3, 2), (2, 1, 3)]))
    shape = draw(batches) + draw(st.sampled_from([(), (2,)])) + last
    affine, bias = draw(flags), draw(flags)
    return Case(lambda rng: nn.LayerNorm(last, 1e-3, affine, bias), (X(shape, distinct),))


@st.composite
def group_norms(draw, layer):
    groups, each, affine = draw(sides), draw(sides), draw(flags)
    if layer is nn.InstanceNorm:
        groups, each = 1, 1
    rest = draw(st.sampled_from([(3,), (3, 1), (2, 2)] if each < 3 else [(), (1,), (3, 1)]))
    c = groups * each if layer is nn.GroupNorm else draw(sides)
    settings = (groups, c, 1e-3) if layer is nn.GroupNorm else (c, 1e-3)
    return Case(lambda rng: layer(*settings, affine=affine), (X((*draw(batches), c, *rest), distinct),))


@st.composite
def pixel_norms(draw):
    """Two channels or more: of one, only the sign is left."""
    shape = (*draw(batches), draw(st.integers(2, 3)), *draw(mst.shapes(max_dims=2, min_side=1, max_side=3)))
    return Case(lambda rng: nn.PixelNorm(), (X(shape, between),))


@st.composite
def softmaxes(draw):
    shape = draw(batches) + draw(mst.shapes(min_dims=1, max_dims=2, min_side=1, max_side=3))
    dim = draw(st.sampled_from([*range(1, len(shape)), -1]))
    return Case(lambda rng: nn.Softmax(dim), (X(shape),))


@st.composite
def reshapes(draw, layer):
    shape = draw(batches) + draw(mst.shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
    if layer is nn.Reshape:
        new = draw(st.sampled_from([(-1,), (1, *shape[:0:-1]), shape[:0:-1], (-1, 1)]))
        return Case(lambda rng: layer(*new), (X(shape),))
    start = draw(st.integers(1, len(shape) - 1))
    end = draw(st.sampled_from([-1, *range(start, len(shape))]))
    return Case(lambda rng: layer(start, end), (X(shape),))


@st.composite
def images(draw, layer, domain=anywhere):
    """A layer that takes images, and a window or a factor."""
    pair = st.tuples(sides, sides) | sides
    how = draw(mst.conv_settings(max_dilation=1, max_groups=1))
    if layer is nn.Upsample:
        factor = draw(pair)
        return Case(lambda rng: layer(factor), (X(how.x_shape),))
    padding = tuple(min(p, k // 2) for p, k in zip(how.padding, how.kernel, strict=True))
    height, width = (max(k, n) for k, n in zip(how.kernel, how.size, strict=True))
    stride = draw(st.sampled_from([None, how.stride]))
    shape = (how.batch, how.channels, height, width)
    return Case(lambda rng: layer(how.kernel, stride, padding), (X(shape, domain),))


@st.composite
def dropouts(draw):
    p, shape = (
        draw(st.sampled_from([0.0, 0.3, 0.9])),
        draw(batches) + draw(mst.shapes(max_dims=2, min_side=1)),
    )
    return Case(lambda rng: nn.Dropout(p, rng=rng), (X(shape),))


@st.composite
def sequences(draw):
    n, m, k = draw(st.integers(3, 4)), draw(sides), draw(sides)

    def make(rng):
        return nn.Sequential(nn.BatchNorm1d(m, affine=False), nn.Linear(m, k, rng=rng), nn.Tanh())

    return Case(make, (X((n, m), spread),))


@st.composite
def residuals(draw):
    n, m = draw(sides), draw(sides)
    short = n != m or draw(flags)

    def make(rng):
        body = nn.Sequential(nn.Linear(n, m, rng=rng), nn.Tanh())
        return nn.Residual(body, nn.Linear(n, m, rng=rng)) if short else nn.Residual(body)

    return Case(make, (X((*draw(batches), n)),))


slopes = st.sampled_from([0.01, 0.2, 1.5])
signals = st.sampled_from([(), (), (1,), (3,)])
pixels = st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)])

# ---------------------------------------------------------------------------------- the table

LAYERS = [
    # products
    Line(nn.Linear, linears(nn.Linear)),
    Line(nn.Maxout, linears(nn.Maxout)),
    Line(nn.Embedding, embeddings()),
    Line(nn.Conv1d, convolutions(nn.Conv1d, 1)),
    Line(nn.Conv2d, convolutions(nn.Conv2d, 2)),
    Line(nn.ConvTranspose1d, convolutions(nn.ConvTranspose1d, 1, transposed=True)),
    Line(nn.ConvTranspose2d, convolutions(nn.ConvTranspose2d, 2, transposed=True)),
    # normalisation
    Line(nn.BatchNorm1d, batch_norms(nn.BatchNorm1d, signals), two_modes=True),
    Line(nn.BatchNorm2d, batch_norms(nn.BatchNorm2d, pixels), two_modes=True),
    Line(nn.ConditionalBatchNorm, batch_norms(nn.ConditionalBatchNorm, signals | pixels), two_modes=True),
    Line(nn.LayerNorm, layer_norms()),
    Line(nn.GroupNorm, group_norms(nn.GroupNorm)),
    Line(nn.InstanceNorm, group_norms(nn.InstanceNorm)),
    Line(nn.PixelNorm, pixel_norms()),
    # activations
    Line(nn.ReLU, elementwise(nn.ReLU, between)),
    Line(nn.LeakyReLU, elementwise(nn.LeakyReLU, between, negative_slope=slopes)),
    Line(nn.ELU, elementwise(nn.ELU, between, alpha=slopes)),
    Line(nn.SiLU, elementwise(nn.SiLU)),
    Line(nn.Tanh, elementwise(nn.Tanh)),
    Line(nn.Sigmoid, elementwise(nn.Sigmoid)),
    Line(nn.Softplus, elementwise(nn.Softplus)),
    Line(nn.Softmax, softmaxes()),
    # shapes
    Line(nn.Flatten, reshapes(nn.Flatten)),
    Line(nn.Reshape, reshapes(nn.Reshape)),
    Line(nn.Upsample, images(nn.Upsample)),
    Line(nn.AvgPool, images(nn.AvgPool)),
    Line(nn.MaxPool, images(nn.MaxPool, distinct)),
    Line(nn.Dropout, dropouts(), two_modes=True),
    # containers
    Line(nn.Sequential, sequences(), two_modes=True),
    Line(nn.Residual, residuals()),
    Line(nn.Lambda, elementwise(lambda: nn.Lambda(lambda x: x * x))),
]
