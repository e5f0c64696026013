"""Unrolled GANs: G's gradient goes back through steps of D. And what they need: substituted parameters."""

import copy
import gc

import numpy as np
import pytest

from minigan import Tensor, grad, nn
from minigan.gan.divergences import KL, JensenShannon
from minigan.gan.losses import Hinge, Minimax, NonSaturating, Wasserstein
from minigan.gan.penalties import R1, GradientPenalty
from minigan.gan.relativistic import RelativisticPairing
from minigan.gan.steps import (
    Game,
    Report,
    alternating_step,
    discriminator_loss,
    generator_loss,
    generator_step,
)
from minigan.gan.unrolled import Unrolled
from minigan.optim import SGD, Adam
from minigan.tape import Node


def values(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def players(normalised=False, backend="numpy"):
    rng = np.random.default_rng(3)
    middle = [nn.BatchNorm1d(4)] if normalised else []
    g = nn.Sequential(nn.Linear(3, 4, rng=rng), nn.Tanh(), nn.Linear(4, 2, rng=rng))
    d = nn.Sequential(nn.Linear(2, 4, rng=rng), *middle, nn.Tanh(), nn.Linear(4, 1, rng=rng))
    return g.to(backend, "float64"), d.to(backend, "float64")


def a_game(unrolled=None, terms=(), loss=None, normalised=False, backend="numpy"):
    g, d = players(normalised, backend)
    adam_g, adam_d = (Adam(net.parameters(), 0.05, (0.5, 0.999)) for net in (g, d))
    return Game(g, d, loss or NonSaturating(), adam_g, adam_d, terms, unrolled)


def batch(backend="numpy"):
    return Tensor(values(1, 5, 2), backend=backend), Tensor(values(2, 5, 3), backend=backend)


def gradient_through(game, real, z, seed=7):
    """∂L_G/∂θ_G with D some steps ahead."""
    rng = np.random.default_rng(seed)
    fake = game.g(z)
    with game.unrolled.ahead(game, real, fake, rng):
        loss, _ = generator_loss(game, real, fake, rng)
    return loss, grad(loss, game.g.parameters())


def loss_after_real_steps(game, real, z, steps, make_optimizer, seed=7):
    """L_G where a copy of D has really made these steps, with an optimiser of its own and no tape between."""
    rng = np.random.default_rng(seed)
    d = copy.deepcopy(game.d)
    optimizer = make_optimizer(d.parameters())
    other = Game(game.g, d, game.loss, game.g_optimizer, optimizer, game.terms)
    fake = game.g(z).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        discriminator_loss(other, real, fake, rng)[0].backward()
        optimizer.step()
    if steps and game.loss.zero_sum:
        return -float(game.loss.discriminator(d(real), d(fake)))
    return float(generator_loss(other, real, fake, rng)[0])


# ------------------------------------------------------------------------------- the gradient of G

RATE = 0.3
OPTIMISERS = {
    "sgd": (Unrolled(lr=RATE, optimizer="sgd"), lambda params: SGD(params, RATE)),
    "adam": (Unrolled(lr=0.05, eps=0.01), lambda params: Adam(params, 0.05, (0.5, 0.999), eps=0.01)),
    "adam, its usual eps": (Unrolled(lr=0.05), lambda params: Adam(params, 0.05, (0.5, 0.999))),
}
GAMES = {
    "plain": {},
    "wasserstein with penalty": {"loss": Wasserstein(), "terms": [GradientPenalty()]},
    "relativistic with r1": {"loss": RelativisticPairing(), "terms": [R1(1.0)]},
    "batch-norm": {"normalised": True},
    "minimax": {"loss": Minimax(real_target=0.9)},
    "kl": {"loss": KL()},
}


def check(unrolled, make_optimizer, steps, kind):
    """G's gradient against finite differences of the whole computation, along random directions."""
    game, (real, z) = a_game(copy.copy(unrolled), **GAMES[kind]), batch()
    game.unrolled.steps = steps
    loss, gradients = gradient_through(game, real, z)
    assert np.isclose(float(loss), loss_after_real_steps(game, real, z, steps, make_optimizer), rtol=1e-10)
    start = [p.numpy().copy() for p in game.g.parameters()]
    for seed in (0, 1):
        us = [values(seed + 10, *p.shape) for p in start]

        def along(t):
            for p, value, u in zip(game.g.parameters(), start, us, strict=True):
                p.data = value + t * u
            return loss_after_real_steps(game, real, z, steps, make_optimizer)

        wide, narrow = ((along(h) - along(-h)) / (2 * h) for h in (2e-4, 1e-4))
        claimed = sum((g.numpy() * u).sum() for g, u in zip(gradients, us, strict=True))
        size = sum(np.abs(g.numpy() * u).sum() for g, u in zip(gradients, us, strict=True))
        along(0.0)
        assert abs((4 * narrow - wide) / 3 - claimed) < 1e-7 * size


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_gradient_of_g_is_that_of_finite_differences(optimizer, steps):
    check(*OPTIMISERS[optimizer], steps, "plain")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", list(GAMES)[1:])
def test_gradient_of_g_in_other_games(kind, optimizer):
    check(*OPTIMISERS[optimizer], 2, kind)


@pytest.mark.mutant
def test_without_the_way_through_d_the_gradient_is_another():
    """What a G would follow that takes D's next weights for constants."""
    game, (real, z) = a_game(Unrolled(3, lr=RATE, optimizer="sgd")), batch()
    _, right = gradient_through(game, real, z)
    fake = game.g(z)
    with game.unrolled.ahead(game, real, fake.detach(), None):
        loss, _ = generator_loss(game, real, fake, None)
    wrong = grad(loss, game.g.parameters())
    far = max(np.abs(a.numpy() - b.numpy()).max() for a, b in zip(right, wrong, strict=True))
    assert far > 0.05 * max(np.abs(a.numpy()).max() for a in right)


def test_no_steps_is_no_unrolling(backend):
    real, z = batch(backend)
    game = a_game(Unrolled(0), backend=backend)
    loss, gradients = gradient_through(game, real, z)
    with nn.frozen(game.d):
        plain, _ = generator_loss(game, real, game.g(z), None)
    assert float(loss) == float(plain)
    for a, b in zip(gradients, grad(plain, game.g.parameters()), strict=True):
        assert (a.numpy() == b.numpy()).all()


def test_the_rate_is_that_of_the_optimiser_of_d():
    real, z = batch()
    (given, _), (taken, _) = (gradient_through(a_game(Unrolled(2, lr=lr)), real, z) for lr in (0.05, None))
    assert float(given) == float(taken)


@pytest.mark.parametrize(
    ("given", "betas", "eps"),
    [
        ({}, (0.8, 0.9), 0.01),
        ({"betas": (0.2, 0.7)}, (0.2, 0.7), 0.01),
        ({"eps": 0.1}, (0.8, 0.9), 0.1),
        ({"betas": (0.0, 0.7), "eps": 0.0}, (0.0, 0.7), 0.0),
    ],
)
def test_betas_and_eps_are_those_of_ds_adam_unless_they_are_given(given, betas, eps):
    (real, z), game = batch(), a_game(Unrolled(3, **given))
    game.d_optimizer = Adam(game.d.parameters(), 0.05, (0.8, 0.9), eps=0.01)
    found, _ = gradient_through(game, real, z)
    expected = loss_after_real_steps(game, real, z, 3, lambda params: Adam(params, 0.05, betas, eps))
    assert np.isclose(float(found), expected, rtol=1e-12)
    other = loss_after_real_steps(game, real, z, 3, lambda params: Adam(params, 0.05, (0.5, 0.999)))
    assert not np.isclose(float(found), other, rtol=1e-6)


def test_where_d_has_no_adam_the_usual_values_are_taken():
    (real, z), game = batch(), a_game(Unrolled(3, lr=0.05))
    game.d_optimizer = SGD(game.d.parameters(), 0.3)
    found, _ = gradient_through(game, real, z)
    expected = loss_after_real_steps(
        game, real, z, 3, lambda params: Adam(params, 0.05, (0.5, 0.999), eps=1e-8)
    )
    assert np.isclose(float(found), expected, rtol=1e-12)


def test_each_time_the_optimiser_begins_anew():
    game, (real, z) = a_game(Unrolled(2)), batch()
    first, second = (gradient_through(game, real, z)[0] for _ in range(2))
    assert float(first) == float(second)


# -------------------------------------------------------------------------------------- D afterwards


def snapshot(module):
    """Every Tensor of a module, as it is: the very objects, and their values."""
    found = {}
    for path, m in module.named_modules():
        for name, value in vars(m).items():
            if isinstance(value, Tensor):
                found[path, name] = (value, value.numpy().copy(), value.requires_grad, value.grad)
    return found


def same(before, after):
    assert before.keys() == after.keys()
    for key, (tensor, value, *rest) in before.items():
        assert after[key][0] is tensor, key
        assert (after[key][1] == value).all() and after[key][2:] == tuple(rest), key


def normalised_game(backend="numpy"):
    """D with running statistics, a spectral norm, and a frozen parameter."""
    rng = np.random.default_rng(3)
    g, _ = players(backend=backend)
    d = nn.Sequential(
        nn.spectral_norm(nn.Linear(2, 4, rng=rng), rng=rng),
        nn.Sequential(nn.BatchNorm1d(4), nn.Tanh()),
        nn.Linear(4, 1, rng=rng),
    ).to(backend, "float64")
    d[2].bias.requires_grad_(False)
    trained = [p for p in d.parameters() if p.requires_grad]
    return Game(g, d, NonSaturating(), SGD(g.parameters(), 0.1), Adam(trained, 0.1), unrolled=Unrolled(3))


def test_afterwards_d_is_what_it_was(backend):
    game, (real, z) = normalised_game(backend), batch(backend)
    discriminator_loss(game, real, game.g(z).detach(), None)  # running statistics have moved
    before, optimiser = snapshot(game.d), game.d_optimizer.state_dict()
    generator_step(game, real, game.g(z), Report())
    same(before, snapshot(game.d))
    for name, value in game.d_optimizer.state_dict().items():
        assert np.array_equal(value, optimiser[name])


def test_even_after_an_error():
    game, (real, z) = normalised_game(), batch()
    before = snapshot(game.d)
    with pytest.raises(KeyError), game.unrolled.ahead(game, real, game.g(z), None):
        assert game.d[2].weight is not before["2", "weight"][0]
        assert game.d[2].bias is before["2", "bias"][0]  # it is frozen: no step would move it
        raise KeyError
    same(before, snapshot(game.d))
    with pytest.raises(ValueError), game.unrolled.ahead(game, real[:, :1], game.g(z), None):
        pass
    same(before, snapshot(game.d))


def test_a_whole_step(backend):
    """D moves as if nobody looked ahead, and G otherwise than if nobody did."""
    real, z = batch(backend)
    plain, ahead = a_game(backend=backend), a_game(Unrolled(3), backend=backend)
    for game in (plain, ahead):
        report = alternating_step(game, [real], [z])
    for a, b in zip(plain.d.parameters(), ahead.d.parameters(), strict=True):
        assert (a.numpy() == b.numpy()).all()
    moved = zip(plain.g.parameters(), ahead.g.parameters(), strict=True)
    assert any((a.numpy() != b.numpy()).any() for a, b in moved)
    assert 0 < report.d_fake_after < 1
    for game in (plain, ahead):  # the optimisers go on from there
        alternating_step(game, [real], [z])


def test_no_history_outlives_the_step():
    """It is freed at once, and does not wait for the garbage collector."""
    game, (real, z) = normalised_game(), batch()
    alternating_step(game, [real], [z])
    gc.collect()
    gc.disable()
    try:
        nodes = sum(type(each) is Node for each in gc.get_objects())
        alternating_step(game, [real], [z])
        assert sum(type(each) is Node for each in gc.get_objects()) <= nodes
    finally:
        gc.enable()


def test_it_goes_on_from_what_adam_remembers():
    """With remember=True the K steps ahead are those that D's own Adam would make."""
    game, (real, z) = a_game(Unrolled(3, remember=True)), batch()
    game.d_optimizer.eps = 0.01
    for seed in range(4):
        alternating_step(game, [Tensor(values(seed, 5, 2))], [Tensor(values(seed, 5, 3))])
    before = game.d_optimizer.state_dict()

    def adam_of(params):
        twin = Adam(params, 0.05, (0.5, 0.999), eps=0.01)
        twin.load_state_dict(before)
        return twin

    loss, gradients = gradient_through(game, real, z)
    assert np.isclose(float(loss), loss_after_real_steps(game, real, z, 3, adam_of), rtol=1e-12)
    game.unrolled.remember = False
    assert not np.isclose(float(gradient_through(game, real, z)[0]), float(loss), rtol=1e-6)
    p, claimed = game.g.parameters()[0], gradients[0].numpy()
    value, u = p.numpy().copy(), values(9, *p.shape)
    sides = []
    for t in (1e-5, -1e-5):
        p.data = value + t * u
        sides.append(loss_after_real_steps(game, real, z, 3, adam_of))
    assert np.isclose((sides[0] - sides[1]) / 2e-5, (claimed * u).sum(), rtol=1e-6)
    after = game.d_optimizer.state_dict()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("loss", "zero_sum"),
    [
        (Minimax(), True),
        (Minimax(real_target=0.9), True),
        (NonSaturating(), False),
        (Wasserstein(), True),
        (Hinge(), False),
        (RelativisticPairing(), False),
        (KL(), True),
        (JensenShannon(non_saturating=True), False),
    ],
)
def test_a_game_of_zero_sum_is_one(loss, zero_sum):
    """L_D + L_G does not depend on the fakes, or else the loss does not claim it."""
    real, fakes = Tensor(values(1, 6, 1)), [Tensor(values(seed, 6, 1)) for seed in (2, 3)]
    sums = [float(loss.discriminator(real, f)) + float(loss.generator(f, real)) for f in fakes]
    assert loss.zero_sum == zero_sum == bool(np.isclose(*sums, rtol=1e-12))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="remember=True is for 'adam', not for 'sgd'"):
        Unrolled(optimizer="sgd", remember=True)
    game, (real, z) = a_game(Unrolled(1, remember=True)), batch()
    game.d_optimizer = SGD(game.d.parameters(), 0.1)
    with pytest.raises(ValueError, match="D's optimiser is SGD, not Adam"):
        alternating_step(game, [real], [z])
    with pytest.raises(ValueError, match="steps must be 0 or more"):
        Unrolled(-1)
    with pytest.raises(ValueError, match="optimizer='rmsprop'; choose 'adam' or 'sgd'"):
        Unrolled(optimizer="rmsprop")


# ------------------------------------------------------------------------------------- substituted


def test_substituted_parameters_are_used_and_get_the_gradient(backend):
    d = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Sequential(nn.Tanh(), nn.Linear(3, 1, rng=1)))
    d.to(backend, "float64")
    x, twin = Tensor(values(1, 5, 2), backend=backend), copy.deepcopy(d)
    new = {name: Tensor(values(7, *p.shape), True, backend=backend) for name, p in d.named_parameters()}
    twin.load_state_dict({name: value.numpy() for name, value in new.items()})
    before = snapshot(d)
    with nn.substituted(d, {name: value * 1.0 for name, value in new.items()}):
        y = d(x)
    same(before, snapshot(d))
    y.sum().backward()
    twin(x).sum().backward()
    assert (y.numpy() == twin(x).numpy()).all()
    assert all(p.grad is None for p in d.parameters())
    for value, p in zip(new.values(), twin.parameters(), strict=True):
        assert (value.grad.numpy() == p.grad.numpy()).all()


def test_what_is_not_named_stays():
    d = nn.Linear(2, 1, rng=0, dtype="float64")
    with nn.substituted(d, {"bias": Tensor([5.0])}):
        y = d(Tensor(np.zeros((1, 2))))
    assert float(y) == 5.0 and y.requires_grad


def test_shared_modules_and_shared_parameters():
    layer, other = (nn.Linear(2, 2, bias=False, rng=i, dtype="float64") for i in (0, 1))
    other.weight = layer.weight
    net = nn.Sequential(layer, nn.Sequential(layer), other)
    w = values(3, 2, 2)
    with nn.substituted(net, {"0.weight": Tensor(w)}):
        y = net(Tensor(np.eye(2)))
    np.testing.assert_allclose(y.numpy(), np.linalg.matrix_power(w.T, 3), rtol=1e-12)
    assert other.weight is layer.weight and len(net.parameters()) == 1


def test_spectral_norms_are_computed_from_the_substitute():
    layer = nn.spectral_norm(nn.Linear(3, 2, bias=False, rng=0, dtype="float64"), rng=0).eval()
    w, x = Tensor(values(3, 2, 3), requires_grad=True), Tensor(np.eye(3))
    before = snapshot(layer)
    with nn.substituted(layer, {"weight_orig": w}):
        y = layer(x)
        u, v = layer.weight_u.numpy(), layer.weight_v.numpy()
    same(before, snapshot(layer))
    np.testing.assert_allclose(y.numpy(), (w.numpy() / (u @ w.numpy() @ v)).T, rtol=1e-12)
    assert grad(y.sum(), w).shape == (2, 3)


def test_training_in_a_block_leaves_no_trace():
    net = nn.Sequential(nn.spectral_norm(nn.Linear(3, 2, rng=0), rng=0), nn.BatchNorm1d(2))
    before = snapshot(net)
    with pytest.raises(ZeroDivisionError), nn.substituted(net, {}):
        net(Tensor(values(1, 4, 3), dtype="float32"))
        assert int(net[1].num_batches_tracked) == 1
        raise ZeroDivisionError
    same(before, snapshot(net))


@pytest.mark.parametrize(
    "given, error, words",
    [
        ({"weights": Tensor([1.0])}, ValueError, r"no parameter 'weights'; it has: weight, bias"),
        ({"bias": Tensor([1.0, 2.0])}, ValueError, r"'bias' has shape \(1,\) in float64.*\(2,\)"),
        ({"bias": Tensor([1.0], dtype="float32")}, ValueError, r"float32.*must agree"),
        ({"bias": Tensor([1.0], backend="strict")}, ValueError, r"on strict"),
        ({"bias": np.ones(1)}, TypeError, r"'bias' is to be a ndarray; give a Tensor"),
    ],
)
def test_substitutes_that_do_not_fit(given, error, words):
    layer = nn.Linear(2, 1, rng=0, dtype="float64")
    before = snapshot(layer)
    with pytest.raises(error, match=words), nn.substituted(layer, given):
        pass
    same(before, snapshot(layer))
