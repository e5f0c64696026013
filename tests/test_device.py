"""Training on another backend than NumPy: the same numbers, and few meetings with the host."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import minigan as mg
from minigan import nn
from minigan.gan import Game, by_name
from minigan.gan.by_name import LOSSES
from minigan.gan.steps import alternating_step, discriminator_loss, generator_loss
from minigan.gpu.random import DeviceGenerator
from minigan.optim import Adam
from minigan.training import Draws, Trainer

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import networks  # the networks that the speed is measured with


def small(backend):
    """A Trainer of small networks with all that draws random numbers and keeps statistics."""
    rng = np.random.default_rng(0)
    data = rng.random((60, 6), dtype="float32") * 2 - 1
    g = nn.Sequential(
        nn.Linear(3, 5, rng=rng), nn.BatchNorm1d(5), nn.LeakyReLU(0.2), nn.Linear(5, 6, rng=rng), nn.Tanh()
    )
    d = nn.Sequential(
        nn.Linear(6, 5, rng=rng), nn.LeakyReLU(0.2), nn.Dropout(0.3, rng=rng), nn.Linear(5, 1, rng=rng)
    )
    adams = (Adam(network.to(backend).parameters(), 2e-4, (0.5, 0.999)) for network in (g, d))
    game = Game(g, d, by_name.loss("non-saturating"), *adams)
    return Trainer(game, data, noise=3, batch=10, ema=0.99, quiet=True)


# ----------------------------------------------------------------------------------- nobody waits


def test_losses_are_read_once_an_epoch(counting):
    run = small("cupy")
    with counting() as counts:
        run.run(steps=5)
    before = counts.to_host
    with counting() as counts:
        run.run(epochs=3)
    assert run.epoch == 3
    assert before == 0
    assert counts.to_host == 3 * 5  # five numbers, after each epoch


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


# ------------------------------------------------------------------------------ and the same numbers


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


@pytest.mark.parametrize("loss", LOSSES)
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
            found[backend].append(objective.mean_output(fake).numpy())
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


def test_a_loss_that_is_not_finite_is_noticed_when_it_is_read(other):
    run = small(other)
    weight = run.play.game.g.parameters()[0]
    weight.data = weight.data * np.nan
    with pytest.raises(mg.finite.NonFiniteError, match=r"steps 1 to 6: loss_d became.*--backend numpy"):
        run.run(epochs=1)


def test_noise_on_a_device_depends_on_seed_purpose_and_number_only(other):
    def noise(seed=1, step=0, **settings):
        return Draws(seed, other).at(step).noise((5, 4), **settings).numpy()

    first = noise()
    assert (noise() == first).all()
    assert (noise(step=1, i=1, of=2) == noise(step=3)).all()
    for different in (noise(step=1), noise(seed=2), noise(purpose="samples"), noise(kind="uniform")):
        assert (different != first).all()
    big = Draws(0, other).noise((100, 1000)).numpy()
    assert abs(big.mean()) < 0.02 and abs(big.std() - 1) < 0.02
    flat = Draws(0, other).noise((100, 1000), "uniform").numpy()
    assert -1 <= flat.min() < -0.99 and 0.99 < flat.max() <= 1 and abs(flat.mean()) < 0.02


@pytest.mark.usefixtures("cupy")
def test_two_draws_of_one_step_differ():
    draws, again, later = (DeviceGenerator(0, "dropout", step) for step in (3, 3, 4))
    a, b = draws.random((2, 3)), draws.random((2, 3))
    assert (a != b).all()
    assert (again.random((2, 3)) == a).all() and (again.random((2, 3)) == b).all()
    assert (later.random((2, 3)) != a).all()
    assert draws.standard_normal((2, 3), dtype="float64").dtype == "float64"
