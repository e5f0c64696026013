"""Where weights begin: the distributions, whom they are handed to, and that a seed settles everything."""

import math

import numpy as np
import pytest

from minigan import Tensor, nn
from minigan.nn import init

SHAPES = [(300, 200), (40, 30, 5, 5), (100, 60, 7)]
MAKERS = {
    "uniform": lambda shape, rng: init.uniform(shape, 0.3, rng),
    "normal": lambda shape, rng: init.normal(shape, 0.02, rng),
    "truncated_normal": lambda shape, rng: init.truncated_normal(shape, 0.02, rng),
    "torch_default": init.torch_default,
    "xavier_uniform": lambda shape, rng: init.xavier_uniform(shape, rng, gain=2.0),
    "xavier_normal": lambda shape, rng: init.xavier_normal(shape, rng, gain=2.0),
    "kaiming_uniform": lambda shape, rng: init.kaiming_uniform(shape, rng, slope=0.2),
    "kaiming_normal": lambda shape, rng: init.kaiming_normal(shape, rng, slope=0.2, mode="fan_out"),
    "orthogonal": init.orthogonal,
}
each_maker = pytest.mark.parametrize("name", MAKERS)


def expected_std(name, shape):
    fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    return {
        "uniform": 0.3 / math.sqrt(3),
        "normal": 0.02,
        "truncated_normal": 0.02 * 0.8796256610342398,  # the deviation of a normal cut at ±2
        "torch_default": 1 / math.sqrt(3 * fan_in),
        "xavier_uniform": 2 * math.sqrt(2 / (fan_in + fan_out)),
        "xavier_normal": 2 * math.sqrt(2 / (fan_in + fan_out)),
        "kaiming_uniform": math.sqrt(2 / (1 + 0.2**2) / fan_in),
        "kaiming_normal": math.sqrt(2 / (1 + 0.2**2) / fan_out),
        "orthogonal": 1 / math.sqrt(max(shape[0], fan_in)),
    }[name]


@each_maker
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_mean_and_deviation(name, shape, rng):
    values = MAKERS[name](shape, rng)
    std, n = expected_std(name, shape), math.prod(shape)
    assert values.shape == shape
    assert abs(values.mean()) < 5 * std / math.sqrt(n)
    assert abs(values.std() / std - 1) < 5 * math.sqrt(1 / (2 * n))


@pytest.mark.parametrize("name", ["uniform", "torch_default", "xavier_uniform", "kaiming_uniform"])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_uniform_fills_its_interval(name, shape, rng):
    values, bound = MAKERS[name](shape, rng), math.sqrt(3) * expected_std(name, shape)
    assert 0.999 * bound < values.max() <= bound
    assert 0.999 * bound < -values.min() <= bound


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0])
def test_truncated_normal_stays_within_the_cut(cut, rng):
    values = init.truncated_normal((200, 100), 3.0, rng, cut=cut)
    assert 0.99 * 3.0 * cut < np.abs(values).max() <= 3.0 * cut
    inside = np.abs(values) < 1.5 * cut  # half of the interval; of a normal more is inside than outside
    share = math.erf(0.5 * cut / math.sqrt(2)) / math.erf(cut / math.sqrt(2))
    assert abs(inside.mean() - share) < 5 * math.sqrt(0.25 / values.size)


@each_maker
def test_the_generator_settles_everything(name):
    """The same generator gives the same numbers; used again, it gives others. A seed is as good."""
    make, rng = MAKERS[name], np.random.default_rng(7)
    first, second = make((4, 3), rng), make((4, 3), rng)
    np.testing.assert_array_equal(make((4, 3), np.random.default_rng(7)), first)
    np.testing.assert_array_equal(make((4, 3), 7), first)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 3, 2), (20, 2, 3)], ids=repr)
def test_orthogonal(shape, rng):
    """WᵀW = I, or W Wᵀ = I, whichever is possible."""
    w = init.orthogonal(shape, rng, gain=1.7)
    assert w.shape == shape
    w = w.reshape(shape[0], -1) / 1.7
    product = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(product, np.eye(min(w.shape)), atol=1e-12)


def test_orthogonal_is_uniform(rng):
    """Q without the sign fix has a diagonal of one sign; a uniform one has no preference."""
    diagonals = np.array([np.diag(init.orthogonal((3, 3), rng)) for _ in range(400)])
    assert np.all(np.abs((diagonals > 0).mean(axis=0) - 0.5) < 5 * math.sqrt(0.25 / 400))


def test_fans_are_those_of_the_layers():
    """fan_in: how many inputs one output is a sum of. Counted by feeding ones to a layer of ones."""
    for layer, x in (
        (nn.Linear(7, 5, bias=False, rng=0), np.ones((1, 7))),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False, rng=0), np.ones((1, 4, 3, 3))),
        (nn.Conv1d(4, 6, 5, bias=False, rng=0), np.ones((1, 4, 5))),
    ):
        init.fill(layer, init.ones)
        np.testing.assert_array_equal(layer(x).numpy(), init.fans(layer.weight.shape)[0])


def test_kaiming_keeps_the_size_of_signals(rng):
    """Through thirty layers with leaky_relu the mean square stays what it was; with xavier it does not."""
    x = rng.normal(size=(64, 256)).astype("float32")
    sizes = {}
    for name, make in (
        ("kaiming", lambda shape: init.kaiming_normal(shape, rng, slope=0.2)),
        ("xavier", lambda shape: init.xavier_normal(shape, rng)),
    ):
        layers = [m for i in range(30) for m in (nn.Linear(256, 256, bias=False, rng=i), nn.LeakyReLU(0.2))]
        model = nn.Sequential(*layers)
        init.fill(model, make)
        sizes[name] = float((model(x) * model(x)).mean())
    assert 0.2 < sizes["kaiming"] < 5
    assert sizes["xavier"] < 1e-6


def test_plain_numbers():
    assert init.zeros((2, 3)).tolist() == [[0, 0, 0]] * 2
    assert init.ones((2,)).tolist() == [1, 1]
    assert init.constant((2,), 0.5).tolist() == [0.5, 0.5]


# ------------------------------------------------------------------------------- into a model


def model(**options):
    return nn.Sequential(
        nn.ConvTranspose2d(64, 32, 4, rng=0, **options),
        nn.BatchNorm2d(32, **options),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, rng=1, **options),
        nn.LayerNorm((64, 2, 2), **options),
        nn.Flatten(),
        nn.Linear(256, 64, rng=2, **options),
    )


def test_fill_gives_every_weight_its_values_in_order():
    m, shapes = model(), []

    def counted(shape):
        shapes.append(shape)
        return np.full(shape, len(shapes))

    before = m.state_dict()
    init.fill(m, counted)
    after = m.state_dict()
    assert shapes == [(64, 32, 4, 4), (64, 32, 3, 3), (64, 256)]
    for i, name in enumerate(("0.weight", "3.weight", "6.weight"), 1):
        assert np.all(after.pop(name) == i)
        del before[name]
    for name, value in after.items():  # biases, and what normalises (a weight of three axes, too)
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_fill_one_tensor():
    m = nn.Linear(3, 2, rng=0)
    weight = m.weight.numpy()
    init.fill(m.bias, init.zeros)
    assert m.bias.numpy().tolist() == [0, 0]
    assert m.weight.numpy() is weight
    with pytest.raises(TypeError, match="only a leaf"):
        init.fill(Tensor([1.0]), init.zeros)


def test_fill_passes_over_the_weights_of_conditional_batch_norm():
    layer = nn.ConditionalBatchNorm(3, 4)
    init.fill(layer, init.zeros)
    assert np.all(layer.weight.numpy() == 1)


def test_dcgan(rng):
    m = nn.Sequential(model(), nn.ConditionalBatchNorm(50, 40))
    for parameter in m.parameters():
        parameter.data = np.full(parameter.shape, 9.0)
    init.dcgan(m, rng)
    state = m.state_dict()
    for name in ("0.0", "0.3", "0.6"):
        weight = state[f"{name}.weight"]
        assert abs(weight.mean()) < 5 * 0.02 / math.sqrt(weight.size)
        assert abs(weight.std() / 0.02 - 1) < 5 / math.sqrt(2 * weight.size)
    for name in ("0.1", "0.4", "1"):
        weight = state[f"{name}.weight"]
        assert abs(weight.mean() - 1) < 5 * 0.02 / math.sqrt(weight.size)
        assert abs(weight.std() / 0.02 - 1) < 5 / math.sqrt(2 * weight.size)
    for name in ("0.0", "0.1", "0.3", "0.4", "0.6", "1"):
        assert np.all(state[f"{name}.bias"] == 0)
    assert np.all(state["0.1.running_var"] == 1)


def test_the_numbers_are_the_same_on_every_backend_and_in_every_precision(backend):
    recipes = (lambda m: init.dcgan(m, 3), lambda m: init.fill(m, lambda shape: init.orthogonal(shape, 3)))
    for recipe in recipes:
        here, there = model(dtype="float64"), model().to(backend)
        recipe(here)
        recipe(there)
        for name, value in there.state_dict().items():
            np.testing.assert_array_equal(value, here.state_dict()[name].astype(value.dtype), err_msg=name)
        assert all(p.backend == backend and p.dtype == np.float32 for p in there.parameters())


def test_frozen_parameters_are_filled_too():
    m = nn.Linear(3, 2, rng=0).requires_grad_(False)
    init.fill(m, init.ones)
    assert np.all(m.weight.numpy() == 1)
    assert not m.weight.requires_grad


WRONG = {
    "no fan": (lambda: init.xavier_normal((3,), 0), r"init: a weight of shape \(3,\) has no fan_in"),
    "orthogonal": (lambda: init.orthogonal((3,), 0), r"init: a weight of shape \(3,\)"),
    "mode": (lambda: init.kaiming_normal((3, 2), 0, mode="fan"), r"init.kaiming: mode='fan' must be"),
    "cut": (lambda: init.truncated_normal((3,), 1.0, 0, cut=0), r"init.truncated_normal: cut=0 must"),
    "rng": (lambda: init.normal((3,), 1.0, None), r"init.normal: rng=None; give a generator"),
    "seed": (lambda: init.normal((3,), 1.0, True), r"init.normal: rng=True; give a generator"),
    "dcgan": (lambda: init.dcgan(nn.ReLU(), "0"), r"init.dcgan: rng='0'; give a generator"),
    "shape": (lambda: init.fill(nn.Linear(3, 2, rng=0), lambda shape: np.ones((3, 2))), r"shape \(3, 2\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case):
    wrong, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        wrong()
