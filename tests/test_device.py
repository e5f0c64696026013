"""What a step asks of a GPU: few launches, and nothing to wait for. Counted by tests/cupy_on_cpu."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.gan import Game, InstanceNoise, by_name
from minigan.gan.by_name import LOSSES, PENALTIES
from minigan.gan.steps import alternating_step, discriminator_loss, generator_loss
from minigan.kernels import device
from minigan.optim import Adam
from minigan.training import Trainer

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import networks  # the networks that the speed is measured with


def trainer(g, d, data, loss="non-saturating", penalty="none", backend="cupy", **settings):
    """A Trainer of these networks on a backend, without a folder."""
    chosen = by_name.loss(loss)
    for network in (g, d):
        network.to(backend)
    terms = by_name.penalty(penalty, d, rng=0)
    adam_g, adam_d = (Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (g, d))
    if chosen.has_discriminator:
        game = Game(g, d, chosen, adam_g, adam_d, terms)
    else:
        game = Game(g, None, chosen, adam_g, None)
    return Trainer(game, data, simultaneous=penalty == "consensus", quiet=True, **settings)


def small(loss="non-saturating", penalty="none", backend="cupy", **settings):
    """Small networks with all that draws random numbers and keeps statistics."""
    rng = np.random.default_rng(0)
    data = rng.random((60, 6), dtype="float32") * 2 - 1
    g = nn.Sequential(
        nn.Linear(3, 5, rng=rng), nn.BatchNorm1d(5), nn.LeakyReLU(0.2), nn.Linear(5, 6, rng=rng), nn.Tanh()
    )
    outputs = 6 if loss == "began" else 1
    d = nn.Sequential(
        nn.Linear(6, 5, rng=rng), nn.LeakyReLU(0.2), nn.Dropout(0.3, rng=rng), nn.Linear(5, outputs, rng=rng)
    )
    if loss != "began":
        d = InstanceNoise(d, 0.1, rng=rng)
    settings = {"noise": 3, "batch": 10, "ema": 0.99, **settings}
    return trainer(g, d, data, loss, penalty, backend, **settings)


# ----------------------------------------------------------------------------------- nobody waits


@pytest.mark.parametrize(
    ("loss", "penalty"), [(loss, "none") for loss in LOSSES] + [("wasserstein", name) for name in PENALTIES]
)
def test_a_step_neither_reads_from_the_device_nor_sends_anything_there(loss, penalty, counting):
    run = small(loss, penalty)
    run.run(steps=2)
    with counting() as counts:
        for _ in range(3):  # in the middle of an epoch
            run.train_step()
    assert counts.launches > 50
    assert (counts.to_device, counts.to_host, counts.waits) == (0, 0, 0)


def test_losses_are_read_once_an_epoch(counting):
    run = small()
    with counting() as counts:
        run.run(steps=5)
    before = counts.to_host
    with counting() as counts:
        run.run(epochs=3)
    assert run.epoch == 3
    assert before == 0
    assert counts.to_host == 3  # the five numbers of an epoch come together


def test_the_counter_counts_what_it_should(counting):
    x = mg.Tensor(np.ones((4, 3), "float32"), backend="cupy", requires_grad=True)
    for work, launches, to_host in (
        (lambda: x * x + 1.0, 2, 0),
        (lambda: x.reshape(3, 4).T[:2], 0, 0),
        (lambda: x.sum(), 1, 0),
        (lambda: float(x.sum()), 1, 1),
        (lambda: x.numpy(), 0, 1),
        (lambda: bool((x > 2.0).any()), 2, 1),
    ):
        work()  # compiles the kernels
        with counting() as counts:
            work()
        assert (counts.launches, counts.to_host, counts.waits) == (launches, to_host, to_host)
    with counting() as counts:
        mg.Tensor([1.0], backend="cupy")
    assert counts.to_device == 1


# ------------------------------------------------------------------------------------ few launches


def test_launches_of_the_mlp(counting):
    g, d = networks.mlp(nn, (256, 256), rng=np.random.default_rng(0))
    run = trainer(g, d, images(784), noise=100, ema=0)
    assert launches(run, counting) <= 100


def test_launches_of_the_dcgan(counting):
    g, d = networks.dcgan(nn, rng=np.random.default_rng(0))
    run = trainer(g, d, images(1, 28, 28), noise=100, ema=0)
    assert launches(run, counting) <= 190


def images(*shape):
    return np.random.default_rng(0).random((40, *shape), dtype="float32") * 2 - 1


def launches(run, counting):
    run.run(steps=2)
    with counting() as counts:
        run.train_step()
    return counts.launches


# ------------------------------------------------------------------------------ and the same numbers


PAIRS = {
    "linear": (lambda rng: nn.Linear(4, 3, rng=rng), (5, 4)),
    "linear without bias": (lambda rng: nn.Linear(4, 3, bias=False, rng=rng), (5, 4)),
    "linear, many axes": (lambda rng: nn.Linear(4, 3, rng=rng), (2, 3, 4)),
    "conv": (lambda rng: nn.Conv2d(2, 3, 3, padding=1, rng=rng), (2, 2, 4, 4)),
    "conv, groups": (lambda rng: nn.Conv2d(4, 6, 3, groups=2, rng=rng), (2, 4, 4, 4)),
    "conv without bias": (lambda rng: nn.Conv2d(2, 3, 3, stride=2, bias=False, rng=rng), (2, 2, 5, 5)),
    "batch norm of features": (lambda rng: nn.BatchNorm1d(4), (5, 4)),
    "batch norm of images": (lambda rng: nn.BatchNorm2d(2), (3, 2, 4, 4)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bend", [nn.LeakyReLU(0.2), nn.ReLU(), nn.LeakyReLU(-0.3)], ids=repr)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_layer_and_the_activation_behind_it(pair, bend, training, backend, rng):
    """Sequential may do the two in one; it makes no difference, to the second derivative."""
    make, shape = PAIRS[pair]
    layer = make(rng).to(backend, dtype="float64").train(training)
    x, weights = (mg.Tensor(rng.normal(size=shape), requires_grad=True, backend=backend) for _ in range(2))
    found = []
    for network in (nn.Sequential(layer, bend), lambda x: bend(layer(x))):
        y = network(x)
        plain = mg.grad((y * y).sum(), [x, *layer.parameters()])
        slope = mg.grad((y * y).sum(), x, create_graph=True)
        second = mg.grad((slope * weights.detach()).sum(), x)
        found.append([t.numpy() for t in (y, *plain, slope, second)])
    for together, apart in zip(*found, strict=True):
        np.testing.assert_allclose(together, apart, rtol=1e-10, atol=1e-12)


def test_a_negative_slope_is_refused_where_the_sign_would_be_lost(backend, rng):
    x, image = (mg.Tensor(rng.normal(size=shape), backend=backend) for shape in ((2, 3), (2, 3, 4, 4)))
    for op, make in (
        ("linear", lambda: ops.linear(x, x, leaky=-0.1)),
        ("conv2d", lambda: ops.conv2d(image, image, leaky=-0.1)),
        ("batch_norm", lambda: ops.batch_norm(x, leaky=-0.1)),
    ):
        with pytest.raises(ValueError, match=rf"{op}: leaky=-0.1 must be 0 or more; use leaky_relu"):
            make()


def test_a_watched_activation_is_called():
    """`summary` wants to see each layer by itself."""
    layers = nn.Sequential(nn.Linear(2, 3, rng=0), nn.LeakyReLU(0.2), nn.Linear(3, 1, rng=0)).to("strict")
    x = mg.Tensor(np.ones((2, 2), "float32"), backend="strict")
    rows = nn.summary(layers, x, show=False).rows
    assert [(row.shape, row.calls) for row in rows if row.kind == "LeakyReLU"] == [((2, 3), 1)]


def few_filters(rng):
    """The DCGAN, of a size for a CPU, without the biases that batch normalisation takes off again.

    Their gradient is nothing but rounding, and Adam would make steps of full length of it.
    """
    few = pytest.MonkeyPatch()
    few.setattr(networks, "CHANNELS", (4, 8))
    try:
        g, d = networks.dcgan(nn, rng=rng)
    finally:
        few.undo()
    for network in (g, d):
        layers = [layer for layer in network if not isinstance(layer, nn.Reshape)]
        for layer, after in pairwise(layers):
            if isinstance(after, nn.BatchNorm2d):
                layer.bias = None
    return g, d


GAMES = {
    "mlp": (lambda rng: networks.mlp(nn, (32, 32), rng=rng), (784,)),
    "dcgan": (few_filters, (1, 28, 28)),
}


@pytest.fixture
def other(backend):
    """A backend that is not NumPy."""
    if backend == "numpy":
        pytest.skip("NumPy is what the others are compared with")
    return backend


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "gmmn"])
def test_losses_are_those_of_numpy(loss, other, rng):
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        r, f = (rng.normal(0, 5, (7, 1)).astype(dtype) for _ in range(2))
        if loss == "began":
            r, f = abs(r[:, 0]), abs(f[:, 0])
        found = {}
        for backend in ("numpy", other):
            objective = by_name.loss(loss)
            real, fake = (mg.Tensor(x, requires_grad=True, backend=backend) for x in (r, f))
            loss_d, loss_g = objective.discriminator(real, fake), objective.generator(fake, real)
            slopes = [*mg.grad(loss_d, [real, fake]), mg.grad(loss_g, fake)]
            once_more = mg.grad(loss_d, fake, create_graph=True)
            found[backend] = [t.numpy() for t in (loss_d, loss_g, *slopes, once_more)]
            found[backend] += [np.asarray(mg.backend.to_numpy(b)) for b in objective.beliefs(real, fake)]
        for ours, theirs in zip(found[other], found["numpy"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
            assert ours.dtype == theirs.dtype


def game_on(backend, name, dtype):
    players = GAMES[name][0](np.random.default_rng(0))
    for network in players:
        network.to(backend, dtype=dtype)
    adams = (Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in players)
    return Game(*players, by_name.loss("non-saturating"), *adams)


def given(name, step, backend, dtype):
    """A batch and noise that are the same on every backend."""
    draws = np.random.default_rng([7, step])
    arrays = draws.uniform(-1, 1, (16, *GAMES[name][1])), draws.normal(size=(16, networks.Z))
    return [mg.Tensor(array.astype(dtype), backend=backend) for array in arrays]


@pytest.mark.parametrize("name", GAMES)
def test_gradients_are_those_of_numpy(name, other):
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-4)):
        found = {}
        for where in ("numpy", other):
            game = game_on(where, name, dtype)
            real, z = given(name, 0, where, dtype)
            fake = game.g(z)
            loss_d, _, _ = discriminator_loss(game, real, fake.detach(), None)
            loss_g, _ = generator_loss(game, real, fake, None)
            slopes = mg.grad(loss_d, game.d_optimizer.params) + mg.grad(loss_g, game.g_optimizer.params)
            found[where] = [slope.numpy() for slope in slopes]
        for ours, theirs in zip(found[other], found["numpy"], strict=True):
            assert abs(ours - theirs).max() <= tolerance * abs(theirs).max()


@pytest.mark.parametrize("name", GAMES)
def test_fifty_steps_lead_where_numpy_leads(name, other):
    found = {}
    for where in ("numpy", other):
        game = game_on(where, name, "float32")
        for step in range(50):
            real, z = given(name, step, where, "float32")
            report = alternating_step(game, [real], [z])
        found[where] = [p.numpy() for p in game.g.parameters() + game.d.parameters()]
        found[where] += [np.asarray(mg.backend.to_numpy(number)) for number in vars(report).values()]
    for ours, theirs in zip(found[other], found["numpy"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_numpy_has_kernels_of_its_own_and_others_have_those_of_a_gpu(other):
    assert device.of(np.ones(2)) is None
    assert device.of(np.ones(2).view(type("Mine", (np.ndarray,), {}))) is None
    name = "minigan.gpu." + ("kernels" if other == "cupy" else "formulas")
    assert device.of(mg.Tensor([1.0], backend=other).data) is sys.modules[name]


def test_a_loss_that_is_not_finite_is_noticed_when_it_is_read(other):
    run = small(backend=other)
    run.game.g.parameters()[0].data = run.game.g.parameters()[0].data * np.nan
    with pytest.raises(mg.finite.NonFiniteError, match=r"steps 1 to 6: a loss became.*--backend numpy"):
        run.run(epochs=1)


def test_noise_on_a_device_depends_on_seed_purpose_and_number_only(other):
    from minigan.training import Noise

    noise = Noise(5, 4, seed=1, backend=other)
    first, second = noise.at(0).numpy(), noise.at(1).numpy()
    assert (Noise(5, 4, seed=1, backend=other).at(1).numpy() == second).all()
    assert (noise.at(0, 2).numpy() == first[:2]).all()
    others = [second, Noise(5, 4, seed=2, backend=other).at(0).numpy()]
    others.append(Noise(5, 4, seed=1, backend=other, purpose="samples").at(0).numpy())
    assert all((other != first).all() for other in others)
    big = Noise(100, 1000, seed=0, backend=other).at(0).numpy()
    assert abs(big.mean()) < 0.02 and abs(big.std() - 1) < 0.02
    flat = Noise(100, 1000, seed=0, kind="uniform", backend=other).at(0).numpy()
    assert -1 <= flat.min() < -0.99 and 0.99 < flat.max() <= 1 and abs(flat.mean()) < 0.02


def test_two_draws_of_one_step_differ(other):
    from minigan.training.draws import generator

    draws = generator(0, "dropout", 3, other)
    a, b = draws.random((2, 3)), draws.random((2, 3))
    assert (a != b).all()
    again = generator(0, "dropout", 3, other)
    assert (again.random((2, 3)) == a).all() and (again.random((2, 3)) == b).all()
    assert (generator(0, "dropout", 4, other).random((2, 3)) != a).all()
