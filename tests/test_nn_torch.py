"""Layers against PyTorch's of the same arguments: names, values, gradients of first and second order."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad, nn
from minigan.nn import init

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install 'minigan[bench]'")
pytestmark = pytest.mark.torch
tnn = torch.nn


class Formula(tnn.Module):
    """A layer that PyTorch lacks: parameters and buffers by name, and what it computes from them."""

    def __init__(self, forward, **shapes):
        super().__init__()
        self._formula = forward
        for name, shape in shapes.items():
            self.register_parameter(name, tnn.Parameter(torch.zeros(shape)))

    def forward(self, *inputs):
        return self._formula(self, *inputs)


class TorchConditional(tnn.BatchNorm2d):
    """What most GANs in PyTorch write by hand."""

    def __init__(self, features, classes):
        super().__init__(features, affine=False)
        self.weight, self.bias = (tnn.Parameter(torch.zeros(classes, features)) for _ in range(2))

    def forward(self, x, labels):
        gamma, beta = (
            tnn.functional.embedding(labels, t)[:, :, None, None] for t in (self.weight, self.bias)
        )
        mean, var = self.running_mean, self.running_var
        if self.training:
            self.num_batches_tracked += 1
        y = tnn.functional.batch_norm(x, mean, var, None, None, self.training, self.momentum, self.eps)
        return gamma * y + beta


def maxout(layer, x):
    return tnn.functional.linear(x, layer.weight, layer.bias).reshape(*x.shape[:-1], 4, 3).amax(-1)


def pixel_norm(layer, x):
    return x / torch.sqrt((x * x).mean(dim=1, keepdim=True) + 1e-8)


R = {"rng": 0}
LABELS = np.array([2, 0, 2, 1])
CONV1, CONV2 = (3, 4, 9), (2, 4, 7, 9)
PAIRS = {
    "Linear": (nn.Linear(5, 7, **R), tnn.Linear(5, 7), (4, 5)),
    "Linear without bias": (nn.Linear(5, 7, False, **R), tnn.Linear(5, 7, False), (2, 4, 5)),
    "Conv1d": (nn.Conv1d(4, 6, 3, 2, 1, 2, 2, **R), tnn.Conv1d(4, 6, 3, 2, 1, 2, 2), CONV1),
    "Conv2d": (nn.Conv2d(4, 6, (2, 3), **R), tnn.Conv2d(4, 6, (2, 3)), CONV2),
    "Conv2d of DCGAN": (
        nn.Conv2d(4, 6, 4, 2, 1, bias=False, **R),
        tnn.Conv2d(4, 6, 4, 2, 1, bias=False),
        CONV2,
    ),
    "Conv2d with everything": (
        nn.Conv2d(4, 6, (3, 2), (2, 1), (0, 2), (1, 3), 2, **R),
        tnn.Conv2d(4, 6, (3, 2), (2, 1), (0, 2), (1, 3), 2),
        CONV2,
    ),
    "ConvTranspose1d": (
        nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, True, 2, **R),
        tnn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, True, 2),
        CONV1,
    ),
    "ConvTranspose2d of DCGAN": (
        nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False, **R),
        tnn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False),
        CONV2,
    ),
    "ConvTranspose2d with everything": (
        nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (0, 1), (1, 2), 2, True, (2, 1), **R),
        tnn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (0, 1), (1, 2), 2, True, (2, 1)),
        CONV2,
    ),
    "Embedding": (nn.Embedding(5, 3, **R), tnn.Embedding(5, 3), np.array([[4, 0], [0, 3]])),
    "Maxout": (nn.Maxout(5, 4, 3, **R), Formula(maxout, weight=(12, 5), bias=(12,)), (6, 5)),
    "BatchNorm1d": (nn.BatchNorm1d(3), tnn.BatchNorm1d(3), (5, 3)),
    "BatchNorm1d of signals": (nn.BatchNorm1d(3, 1e-3, 0.3), tnn.BatchNorm1d(3, 1e-3, 0.3), (2, 3, 5)),
    "BatchNorm2d": (nn.BatchNorm2d(3), tnn.BatchNorm2d(3), (2, 3, 4, 5)),
    "BatchNorm2d, all batches": (
        nn.BatchNorm2d(3, momentum=None, affine=False),
        tnn.BatchNorm2d(3, momentum=None, affine=False),
        (1, 3, 4, 5),
    ),
    "BatchNorm2d, this batch": (
        nn.BatchNorm2d(3, track_running_stats=False),
        tnn.BatchNorm2d(3, track_running_stats=False),
        (2, 3, 4, 5),
    ),
    "ConditionalBatchNorm": (nn.ConditionalBatchNorm(3, 4), TorchConditional(3, 4), (4, 3, 2, 5), LABELS),
    "LayerNorm": (nn.LayerNorm(7), tnn.LayerNorm(7), (3, 2, 7)),
    "LayerNorm of images": (nn.LayerNorm((3, 4), bias=False), tnn.LayerNorm((3, 4), bias=False), (2, 3, 4)),
    "LayerNorm, bare": (nn.LayerNorm(7, 1e-2, False), tnn.LayerNorm(7, 1e-2, False), (3, 7)),
    "GroupNorm": (nn.GroupNorm(2, 6), tnn.GroupNorm(2, 6), (3, 6, 4, 5)),
    "GroupNorm of features": (nn.GroupNorm(2, 6, affine=False), tnn.GroupNorm(2, 6, affine=False), (3, 6)),
    "InstanceNorm": (nn.InstanceNorm(3), tnn.InstanceNorm2d(3), (2, 3, 4, 5)),
    "InstanceNorm of signals": (
        nn.InstanceNorm(3, affine=True),
        tnn.InstanceNorm1d(3, affine=True),
        (2, 3, 5),
    ),
    "PixelNorm": (nn.PixelNorm(), Formula(pixel_norm), (2, 5, 3, 3)),
    "ReLU": (nn.ReLU(), tnn.ReLU(), (4, 5)),
    "LeakyReLU": (nn.LeakyReLU(), tnn.LeakyReLU(), (4, 5)),
    "LeakyReLU of GANs": (nn.LeakyReLU(0.2), tnn.LeakyReLU(0.2), (4, 5)),
    "ELU": (nn.ELU(), tnn.ELU(), (4, 5)),
    "ELU with alpha": (nn.ELU(0.7), tnn.ELU(0.7), (4, 5)),
    "SiLU": (nn.SiLU(), tnn.SiLU(), (4, 5)),
    "Tanh": (nn.Tanh(), tnn.Tanh(), (4, 5)),
    "Sigmoid": (nn.Sigmoid(), tnn.Sigmoid(), (4, 5)),
    "Softplus": (nn.Softplus(), tnn.Softplus(), (4, 5)),
    "Softmax": (nn.Softmax(1), tnn.Softmax(1), (4, 5, 2)),
    "Flatten": (nn.Flatten(), tnn.Flatten(), (2, 3, 4)),
    "Flatten some": (nn.Flatten(1, 2), tnn.Flatten(1, 2), (2, 3, 4, 5)),
    "Reshape": (nn.Reshape(3, -1), tnn.Unflatten(1, (3, -1)), (2, 12)),
    "Upsample": (nn.Upsample(2), tnn.Upsample(scale_factor=2), (2, 3, 4, 5)),
    "Upsample unequally": (nn.Upsample((2, 3)), tnn.Upsample(scale_factor=(2, 3)), (2, 3, 4, 5)),
    "AvgPool": (nn.AvgPool(2), tnn.AvgPool2d(2), (2, 3, 5, 7)),
    "AvgPool with a border": (nn.AvgPool((3, 2), 2, 1), tnn.AvgPool2d((3, 2), 2, 1), (2, 3, 5, 7)),
    "MaxPool": (nn.MaxPool(2), tnn.MaxPool2d(2), (2, 3, 5, 7)),
    "MaxPool with a border": (nn.MaxPool(3, 2, (1, 0)), tnn.MaxPool2d(3, 2, (1, 0)), (2, 3, 5, 7)),
    "Residual": (
        nn.Residual(nn.Sequential(nn.Linear(5, 5, **R), nn.Tanh())),
        Formula(lambda layer, x: x + layer.body(x)),
        (4, 5),
    ),
    "a network": (
        nn.Sequential(
            nn.ConvTranspose2d(4, 8, 4, 2, 1, bias=False, **R), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
            nn.Conv2d(8, 3, 3, padding=1, **R), nn.Tanh(),
        ),
        tnn.Sequential(
            tnn.ConvTranspose2d(4, 8, 4, 2, 1, bias=False), tnn.BatchNorm2d(8), tnn.LeakyReLU(0.2),
            tnn.Conv2d(8, 3, 3, padding=1), tnn.Tanh(),
        ),
        (2, 4, 3, 4),
    ),
}  # fmt: skip
PAIRS["Residual"][1].body = tnn.Sequential(tnn.Linear(5, 5), tnn.Tanh())


class Both:
    """A layer and PyTorch's with the same state, and inputs for both."""

    def __init__(self, name):
        self.ours, self.theirs, *inputs = deepcopy(PAIRS[name])
        self.ours.to(dtype="float64").train()
        self.theirs.double().train()
        self.specs, self.rng = inputs, np.random.default_rng(20141210)
        for parameter in self.ours.parameters():
            parameter.data = self.rng.normal(size=parameter.shape)
        for module in self.ours.modules():
            if "running_mean" in dict(module.named_buffers()):
                n = module.num_features
                module.running_mean = Tensor(self.rng.normal(size=n))
                module.running_var = Tensor(self.rng.uniform(0.5, 2, n))
        state = {key: torch.tensor(value) for key, value in self.ours.state_dict().items()}
        self.theirs.load_state_dict(state, strict=True)

    def inputs(self):
        """The same inputs for both: floating point numbers are leaves."""
        arrays = [self.rng.normal(size=s) if isinstance(s, tuple) else s for s in self.specs]
        floating = [a.dtype.kind == "f" for a in arrays]
        ours = [Tensor(a, requires_grad=f) for a, f in zip(arrays, floating, strict=True)]
        theirs = [torch.tensor(a, requires_grad=f) for a, f in zip(arrays, floating, strict=True)]
        return ours, theirs

    def assert_same_state(self):
        ours, theirs = self.ours.state_dict(), self.theirs.state_dict()
        assert list(ours) == list(theirs)
        for key in ours:
            assert_close(ours[key], theirs[key], key)


def assert_close(ours, theirs, what):
    ours = ours.numpy() if isinstance(ours, Tensor) else ours
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    assert str(ours.dtype) == str(theirs.dtype), what
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=what)


each_pair = pytest.mark.parametrize("name", PAIRS)


@each_pair
def test_names_shapes_and_order_of_the_state(name):
    ours, theirs, *_ = PAIRS[name]
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    assert [key for key, _ in ours.named_buffers()] == [key for key, _ in theirs.named_buffers()]


@each_pair
def test_the_state_comes_back(name):
    """What PyTorch saves, we load: as its own tensors, in its own precision."""
    both = Both(name)
    saved = {key: value + 1 for key, value in both.theirs.state_dict().items()}
    both.ours.load_state_dict(saved)
    for key, value in both.ours.state_dict().items():
        np.testing.assert_array_equal(value, saved[key].numpy(), err_msg=key)


@each_pair
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_values_and_gradients_to_second_order(name, training):
    """Gradients of Σ v · y; then of how they grow along a direction, as a gradient penalty needs them."""
    both = Both(name)
    both.ours.train(training)
    both.theirs.train(training)
    ours, theirs = both.inputs()
    y, t = both.ours(*ours), both.theirs(*theirs)
    assert_close(y, t, "value")
    v = both.rng.normal(size=y.shape)
    ours = [x for x in [*ours, *both.ours.parameters()] if x.requires_grad]
    theirs = [x for x in [*theirs, *both.theirs.parameters()] if x.requires_grad]
    first = grad(y, ours, v, create_graph=True)
    first_t = torch.autograd.grad(t, theirs, torch.tensor(v), create_graph=True)
    for i, (a, b) in enumerate(zip(first, first_t, strict=True)):
        assert_close(a, b, f"gradient {i}")
    squares, squares_t = sum((g * g).sum() for g in first), sum((g * g).sum() for g in first_t)
    if squares_t.requires_grad:
        second = grad(squares, ours, unreachable="zeros")
        second_t = torch.autograd.grad(squares_t, theirs, allow_unused=True, materialize_grads=True)
        for i, (a, b) in enumerate(zip(second, second_t, strict=True)):
            scale = max(1.0, float(b.abs().max()))
            assert_close(a / scale, b / scale, f"second gradient {i}")


@each_pair
def test_three_steps_of_training_and_evaluation(name):
    """The same steps of gradient descent lead to the same parameters and running averages."""
    both = Both(name)
    for _ in range(3):
        ours, theirs = both.inputs()
        y, t = both.ours(*ours), both.theirs(*theirs)
        v = both.rng.normal(size=y.shape) / y.size
        both.ours.zero_grad()
        both.theirs.zero_grad()
        y.backward(v)
        t.backward(torch.tensor(v))
        for p, q in zip(both.ours.parameters(), both.theirs.parameters(), strict=True):
            p.data = p.data - 0.1 * p.grad.data
            q.data -= 0.1 * q.grad
    both.assert_same_state()
    both.ours.eval()
    both.theirs.eval()
    ours, theirs = both.inputs()
    assert_close(both.ours(*ours), both.theirs(*theirs), "evaluation")


BEGINNINGS = {
    "Linear": (300, 200),
    "Conv1d": (60, 200, 5),
    "Conv2d": (30, 200, 4, 2, 0, 1, 2),
    "ConvTranspose1d": (60, 200, 5),
    "ConvTranspose2d": (30, 200, 4, 2, 0, 0, 2),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_weights_and_biases_begin_within_the_same_bounds(name):
    """Uniform within ±1/√fan_in; the largest of many values shows the bound, to a few per cent."""
    torch.manual_seed(0)
    ours = getattr(nn, name)(*BEGINNINGS[name], rng=0)
    theirs = getattr(tnn, name)(*BEGINNINGS[name]).state_dict()
    bound = 1 / np.sqrt(init.fans(ours.weight.shape)[0])
    for key, value in ours.state_dict().items():
        reference = theirs[key].numpy()
        for values in (value, reference):
            assert 0.95 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
        assert abs(value.std() / reference.std() - 1) < (0.02 if key == "weight" else 0.15)


def test_embeddings_begin_normally_distributed():
    torch.manual_seed(0)
    ours, theirs = nn.Embedding(300, 200, rng=0), tnn.Embedding(300, 200)
    for value in (ours.weight.numpy(), theirs.weight.detach().numpy()):
        assert abs(value.mean()) < 0.02
        assert abs(value.std() - 1) < 0.02


RECIPES = {
    "xavier_uniform": (init.xavier_uniform, tnn.init.xavier_uniform_),
    "xavier_normal": (init.xavier_normal, tnn.init.xavier_normal_),
    "kaiming_uniform": (init.kaiming_uniform, tnn.init.kaiming_uniform_),
    "kaiming_normal": (init.kaiming_normal, tnn.init.kaiming_normal_),
    "kaiming_normal 0.2": (
        lambda shape, rng: init.kaiming_normal(shape, rng, 0.2, "fan_out"),
        lambda t, **k: tnn.init.kaiming_normal_(t, 0.2, "fan_out", **k),
    ),
    "orthogonal": (init.orthogonal, tnn.init.orthogonal_),
    "truncated_normal": (
        lambda shape, rng: init.truncated_normal(shape, 1.0, rng),
        tnn.init.trunc_normal_,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(300, 200), (40, 30, 5, 5)], ids=repr)
def test_recipes_are_pytorchs(name, shape):
    ours, theirs = RECIPES[name]
    value = ours(shape, 0)
    reference = theirs(torch.empty(shape), generator=torch.Generator().manual_seed(0)).numpy()
    n = value.size
    assert abs(value.mean() - reference.mean()) < 8 * reference.std() / np.sqrt(n)
    assert abs(value.std() / reference.std() - 1) < 8 / np.sqrt(2 * n)
    if name not in (
        "xavier_normal",
        "kaiming_normal",
        "kaiming_normal 0.2",
        "orthogonal",
    ):  # these are bounded
        assert abs(np.abs(value).max() / np.abs(reference).max() - 1) < 0.01


MASKED = {  # what sends a gradient one way or the other
    "relu": (mg.relu, torch.relu),
    "leaky_relu": (lambda x: mg.leaky_relu(x, 0.25), lambda x: torch.nn.functional.leaky_relu(x, 0.25)),
    "maximum": (lambda x: mg.maximum(x, 0.0), lambda x: torch.maximum(x, torch.zeros_like(x))),
    "minimum": (lambda x: mg.minimum(x, 0.0), lambda x: torch.minimum(x, torch.zeros_like(x))),
    "clip": (lambda x: mg.clip(x, -1, 1), lambda x: torch.clamp(x, -1, 1)),
    "where": (lambda x: mg.where(x.data > 0, x, 0.0), lambda x: torch.where(x > 0, x, 0.0)),
    "max": (mg.max, torch.max),
    "min": (mg.min, torch.min),
    "pow 0": (lambda x: x**0, lambda x: x**0),
    "elu": (mg.elu, torch.nn.functional.elu),
    "hinge": (lambda x: mg.relu(1 - x).mean(), lambda x: torch.relu(1 - x).mean()),
}


@pytest.mark.parametrize("g", [1.0, 0.0, np.inf])
@pytest.mark.parametrize("name", MASKED)
def test_masked_gradients_at_special_values(name, g):
    mine, theirs = MASKED[name]
    special = [-np.inf, -1e30, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1.0, 1e30, np.inf]
    for numbers in (special, [*special, np.nan], [1.0, 2.0, 3.0], special[:-1]):
        array = np.array(numbers)
        x, torch_x = mg.Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        with np.errstate(all="ignore"):
            y, torch_y = mine(x), theirs(torch_x)
            found = mg.grad(y, x, np.full(y.shape, g))
        (expected,) = torch.autograd.grad(torch_y, torch_x, torch.full_like(torch_y, g))
        np.testing.assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-15)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-15)
