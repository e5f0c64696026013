"""Penalties, limits and wrappers of D: each against a formula, finite differences, and known mistakes."""

import json

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad, gradcheck, nn
from minigan.gan.began import BEGAN
from minigan.gan.by_name import PENALTIES, penalty
from minigan.gan.consensus import Consensus
from minigan.gan.discriminator_wrappers import InstanceNoise, Packed
from minigan.gan.losses import Minimax, NonSaturating, Wasserstein
from minigan.gan.penalties import (
    DRAGAN,
    R1,
    R2,
    GradientPenalty,
    around,
    between,
    dragan_penalty,
    gradient_penalty,
    input_gradients,
    zero_centred_penalty,
)
from minigan.gan.steps import (
    Game,
    Report,
    alternating_step,
    discriminator_loss,
    discriminator_step,
    simultaneous_step,
)
from minigan.gan.weight_limits import L2, WeightClipping, spectral
from minigan.optim import SGD, RMSprop


def values(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def mlp(seed=0, normaliser=None, inputs=6):
    rng = np.random.default_rng(seed)
    middle = [] if normaliser is None else [normaliser]
    layers = [nn.Linear(inputs, 5, rng=rng), *middle, nn.Tanh(), nn.Linear(5, 1, rng=rng)]
    return nn.Sequential(*layers).to(dtype="float64")


def conv(seed=0, normaliser=None):
    """For images of 2 × 4 × 4."""
    rng = np.random.default_rng(seed)
    middle = [] if normaliser is None else [normaliser]
    first = nn.Conv2d(2, 3, 3, stride=2, padding=1, rng=rng)
    layers = [first, *middle, nn.SiLU(), nn.Flatten(), nn.Linear(12, 1, rng=rng)]
    return nn.Sequential(*layers).to(dtype="float64")


NETWORKS = {"mlp": (mlp, (6,)), "conv": (conv, (2, 4, 4))}
BATCH_NORMS = {"mlp": lambda: nn.BatchNorm1d(5), "conv": lambda: nn.BatchNorm2d(3)}

# All of one form: critic, real, fake, fresh generator, allow_mixing
PENALTY_FUNCTIONS = {
    "gp": lambda d, x, f, rng, allow: gradient_penalty(d, x, f, rng, 3.0, allow_mixing=allow),
    "gp-one-sided": lambda d, x, f, rng, allow: gradient_penalty(d, x, f, rng, 3.0, True, 0.15, allow),
    "dragan": lambda d, x, f, rng, allow: dragan_penalty(d, x, rng, 3.0, allow_mixing=allow),
    "r1": lambda d, x, f, rng, allow: zero_centred_penalty(d, x, 3.0, allow),
    "r2": lambda d, x, f, rng, allow: zero_centred_penalty(d, f, 3.0, allow),
}


def a_game(d, terms=(), loss=None, d_optimizer=None, g=None):
    g = g or nn.Sequential(nn.Linear(3, 6, rng=1), nn.Tanh()).to(dtype="float64")
    d_optimizer = d_optimizer or SGD(d.parameters(), lr=0.1)
    return Game(g, d, loss or NonSaturating(), SGD(g.parameters(), lr=0.1), d_optimizer, terms)


# ------------------------------------------------------------------------------ second derivatives


@pytest.mark.parametrize("name", PENALTY_FUNCTIONS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("normalised", [False, True], ids=["", "batch-norm"])
def test_gradient_for_the_weights_is_that_of_finite_differences(name, network, normalised):
    make, shape = NETWORKS[network]
    d = make(3, BATCH_NORMS[network]().to(dtype="float64") if normalised else None)
    names = [each for each, _ in d.named_parameters()]

    def value(x, fake, *weights):
        with nn.substituted(d, dict(zip(names, weights, strict=True))):
            return PENALTY_FUNCTIONS[name](d, x, fake, np.random.default_rng(7), normalised)

    x, fake = values(1, 4, *shape), values(2, 4, *shape)
    first = 1 if name == "dragan" else 0  # the size of its noise, taken from x, is a constant to the tape
    checked = range(first, len(names) + 2)
    assert gradcheck(value, x, fake, *(p.numpy() for p in d.parameters()), argnums=checked, order=1)


def test_third_derivatives_of_the_gradient_penalty():
    d = mlp(3, inputs=2)
    names = [each for each, _ in d.named_parameters()]
    x, fake = values(1, 3, 2), values(2, 3, 2)

    def value(*weights):
        with nn.substituted(d, dict(zip(names, weights, strict=True))):
            rng = np.random.default_rng(7)
            return gradient_penalty(d, Tensor(x), Tensor(fake), rng)

    assert gradcheck(value, *(p.numpy() for p in d.parameters()), order=2)


# ---------------------------------------------------------------------------- the values, by other means


@pytest.mark.parametrize("network", NETWORKS)
def test_gradient_penalty_image_by_image(network, backend):
    make, shape = NETWORKS[network]
    d, real, fake = make(3).to(backend), values(1, 5, *shape), values(2, 5, *shape)
    epsilon = np.random.default_rng(7).random(5)
    penalties = []
    for e, x, y in zip(epsilon, real, fake, strict=True):
        x_hat = Tensor((e * x + (1 - e) * y)[None], requires_grad=True, backend=backend)
        slope = np.sqrt((grad(d(x_hat).sum(), x_hat).numpy() ** 2).sum())
        penalties.append(10 * (slope - 1) ** 2)
    real, fake = (Tensor(t, backend=backend) for t in (real, fake))
    found = gradient_penalty(d, real, fake, np.random.default_rng(7))
    assert found.shape == () and found.backend == backend
    assert np.isclose(float(found), np.mean(penalties), rtol=1e-12)


def wrong_norm(axes):
    def penalise(critic, real, fake, rng):
        x_hat = Tensor(between(real, fake, rng), requires_grad=True)
        slope = mg.norm(grad(critic(x_hat).sum(), x_hat, create_graph=True), axis=axes)
        return 10 * ((slope - 1) ** 2).mean()

    return penalise


def one_epsilon(critic, real, fake, rng):
    e = rng.random()
    return 10 * ((mg.norm(input_gradients(critic, e * real + (1 - e) * fake), axis=1) - 1) ** 2).mean()


def epsilon_for_each_pixel(critic, real, fake, rng):
    e = Tensor(rng.random(real.shape))
    return 10 * ((mg.norm(input_gradients(critic, e * real + (1 - e) * fake), axis=1) - 1) ** 2).mean()


@pytest.mark.mutant
@pytest.mark.parametrize(
    "mutant",
    [wrong_norm(None), wrong_norm(1), one_epsilon, epsilon_for_each_pixel],
    ids=["norm of the whole batch", "norm over channels", "one epsilon", "an epsilon for each pixel"],
)
def test_the_usual_mistakes_give_another_value(mutant):
    d, real, fake = conv(3), Tensor(3 * values(1, 5, 2, 4, 4)), Tensor(3 * values(2, 5, 2, 4, 4))
    right, wrong = (float(f(d, real, fake, np.random.default_rng(7))) for f in (gradient_penalty, mutant))
    assert abs(wrong - right) > 0.01 * right


@pytest.mark.parametrize("network", NETWORKS)
def test_zero_centred_penalty_image_by_image(network, backend):
    make, shape = NETWORKS[network]
    d, images = make(3).to(backend), values(1, 5, *shape)
    squares = []
    for x in images:
        x = Tensor(x[None], requires_grad=True, backend=backend)
        squares.append((grad(d(x).sum(), x).numpy() ** 2).sum())
    found = zero_centred_penalty(d, Tensor(images, backend=backend), 3.0)
    assert np.isclose(float(found), 1.5 * np.mean(squares), rtol=1e-12)


def test_linear_critic(backend):
    w = Tensor(values(0, 6, 1), requires_grad=True, backend=backend)
    x, fake = (Tensor(values(i, 8, 6), backend=backend) for i in (1, 2))
    length, rng = np.sqrt((w.numpy() ** 2).sum()), np.random.default_rng(0)

    def critic(x):
        return x @ w

    assert np.isclose(float(gradient_penalty(critic, x, fake, rng)), 10 * (length - 1) ** 2, rtol=1e-12)
    assert np.isclose(float(gradient_penalty(critic, x, fake, rng, target=0)), 10 * length**2, rtol=1e-12)
    assert np.isclose(float(dragan_penalty(critic, x, rng, 2.0)), 2 * (length - 1) ** 2, rtol=1e-12)
    r1 = zero_centred_penalty(critic, x, 3.0)
    assert np.isclose(float(r1), 1.5 * length**2, rtol=1e-12)
    np.testing.assert_allclose(grad(r1, w).numpy(), 3 * w.numpy(), rtol=1e-12)


@pytest.mark.parametrize("scale, flat", [(0.9, True), (1.1, False)])
def test_one_sided_leaves_flat_critics_alone(scale, flat):
    w = values(0, 6, 1)
    w = Tensor(scale * w / np.sqrt((w**2).sum()), requires_grad=True)
    x, rng = Tensor(values(1, 8, 6)), np.random.default_rng(0)
    found = gradient_penalty(lambda x: x @ w, x, x, rng, one_sided=True)
    both = gradient_penalty(lambda x: x @ w, x, x, rng)
    assert np.isclose(float(both), 0.1, rtol=1e-9)
    assert float(found) == 0 if flat else np.isclose(float(found), float(both))
    assert (grad(found, w) == 0).all() if flat else (grad(found, w) != 0).all()


@pytest.mark.parametrize("target", [0.5, 2.0])
def test_the_target_may_be_another(target):
    w = Tensor([[3.0], [4.0]], requires_grad=True)
    x = Tensor(values(1, 8, 2))
    found = gradient_penalty(lambda x: x @ w, x, x, np.random.default_rng(0), weight=1.0, target=target)
    assert np.isclose(float(found), (5 - target) ** 2)


def test_several_logits_of_an_image_are_added():
    w = Tensor(values(0, 6, 3), requires_grad=True)
    x = Tensor(values(1, 8, 6))
    length = (w.numpy().sum(axis=1) ** 2).sum()
    assert np.isclose(float(zero_centred_penalty(lambda x: x @ w, x, 2.0)), length)


# ----------------------------------------------------------------------------- where they look at D


def test_between_is_one_point_on_the_line_for_each_image(backend):
    real, fake = (Tensor(values(i, 50, 2, 3), backend=backend) for i in (1, 2))
    x = between(real, fake, np.random.default_rng(0))
    assert x.backend == backend and not x.requires_grad
    epsilon = ((x - fake) / (real - fake)).numpy().reshape(50, -1)
    assert ((epsilon >= 0) & (epsilon < 1)).all()
    np.testing.assert_allclose(epsilon, epsilon[:, :1] * np.ones(6), rtol=1e-9)
    assert np.ptp(epsilon[:, 0]) > 0.8 and abs(epsilon[:, 0].mean() - 0.5) < 0.1


def test_around_is_the_noise_of_the_authors(backend):
    n, f, c = 2000, 30, 0.3
    real = Tensor(5 * values(1, n, f) + 2, backend=backend)
    x = around(real, c, np.random.default_rng(0))
    noise = (x - real).numpy() / (c * real.numpy().std())
    assert noise.min() >= 0 and noise.max() < 1
    assert abs(noise.mean() - 1 / 4) < 0.01  # E αu
    assert abs(noise.var() - 7 / 144) < 0.003  # E α² E u² - 1/16
    alpha = noise.max(axis=1)  # nearly: the largest of 30 u's is about 30/31
    assert abs(alpha.mean() - 0.5 * 30 / 31) < 0.02 and abs(alpha.std() - 12**-0.5) < 0.02


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PENALTY_FUNCTIONS)
def test_precision_and_backend_are_those_of_the_images(name, dtype, backend):
    d = mlp(3).to(backend, dtype)
    x, fake = (Tensor(values(i, 4, 6), dtype=dtype, backend=backend) for i in (1, 2))
    found = PENALTY_FUNCTIONS[name](d, x, fake, np.random.default_rng(0), False)
    assert (found.dtype, found.backend, found.shape) == (np.dtype(dtype), backend, ())
    gradients = grad(found, d.parameters()[:-1])
    assert all(g.dtype == dtype and g.backend == backend for g in gradients)


@pytest.mark.parametrize("name", PENALTY_FUNCTIONS)
def test_copies_in_the_batch_change_nothing(name):
    """With fakes equal to the real images x̂ = x, whatever ε; and x̂ = x for c = 0."""
    d, x = mlp(3), values(1, 4, 6)
    if name == "dragan":
        once, twice = (dragan_penalty(d, Tensor(t), np.random.default_rng(0), c=0) for t in (x, [*x, *x]))
    else:
        once, twice = (
            PENALTY_FUNCTIONS[name](d, Tensor(t), Tensor(t), np.random.default_rng(0), False)
            for t in (x, [*x, *x])
        )
    assert np.isclose(float(once), float(twice), rtol=1e-12)
    for a, b in zip(grad(once, d.parameters()[:-1]), grad(twice, d.parameters()[:-1]), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PENALTY_FUNCTIONS)
@pytest.mark.parametrize("case", ["all weights 0", "saturated", "huge images", "equal images"])
def test_extreme_inputs_stay_finite(name, case):
    d, x, fake = mlp(3).to(dtype="float32"), values(1, 4, 6), values(2, 4, 6)
    if case == "all weights 0":
        for p in d.parameters():
            p.data = 0 * p.data
    if case == "saturated":
        for p in d.parameters():
            p.data = 1e4 * p.data
    x, fake = {"huge images": (1e9 * x, -1e9 * fake), "equal images": (0 * x, 0 * x)}.get(case, (x, fake))
    x, fake = (Tensor(t, dtype="float32") for t in (x, fake))
    found = PENALTY_FUNCTIONS[name](d, x, fake, np.random.default_rng(0), False)
    assert np.isfinite(float(found))
    for g in grad(found, d.parameters(), unreachable="zeros"):
        assert np.isfinite(g.numpy()).all()


def test_fakes_with_a_history_keep_it():
    """Where D is unrolled, the penalty is a function of G's weights, too."""
    d, w = mlp(3), Tensor(values(0, 6), requires_grad=True)
    x = Tensor(values(1, 4, 6))
    for name in ("gp", "r2"):
        found = PENALTY_FUNCTIONS[name](d, x, x * w, np.random.default_rng(0), False)
        assert np.abs(grad(found, w).numpy()).max() > 1e-6


# --------------------------------------------------------------------------------------- refusals

MIXING = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(5),
    "MinibatchStdDev": lambda: nn.MinibatchStdDev(),
    "MinibatchDiscrimination": lambda: nn.MinibatchDiscrimination(5, 2, 2, rng=0),
}


@pytest.mark.parametrize("name", PENALTY_FUNCTIONS)
@pytest.mark.parametrize("layer", MIXING)
def test_layers_that_mix_images_are_refused(name, layer):
    inner = nn.Sequential(nn.Linear(6, 5, rng=0), MIXING[layer]())
    d = nn.Sequential(inner, nn.Lambda(lambda x: x.sum(axis=1))).to(dtype="float64")
    x = Tensor(values(1, 4, 6))
    with pytest.raises(ValueError, match=rf"layer '0\.1', {layer}.*allow_mixing=True"):
        PENALTY_FUNCTIONS[name](d, x, x, np.random.default_rng(0), False)
    assert np.isfinite(float(PENALTY_FUNCTIONS[name](d, x, x, np.random.default_rng(0), True)))


@pytest.mark.parametrize("term", [GradientPenalty, DRAGAN, R1, R2])
def test_terms_refuse_them_too(term):
    d = mlp(3, normaliser=nn.BatchNorm1d(5).to(dtype="float64"))
    x, rng = Tensor(values(1, 4, 6)), np.random.default_rng(0)
    with pytest.raises(ValueError, match=rf"{term.__name__}: D's layer '1', BatchNorm1d"):
        discriminator_loss(a_game(d, [term()]), x, x, rng)
    discriminator_loss(a_game(d, [term(allow_mixing=True)]), x, x, rng)


def test_batch_norm_in_evaluation_mixes_nothing():
    d = mlp(3, normaliser=nn.BatchNorm1d(5).to(dtype="float64"))
    x = Tensor(values(1, 4, 6))
    assert float(zero_centred_penalty(d.eval(), x, 1.0)) > 0
    d = mlp(3, normaliser=nn.BatchNorm1d(5, track_running_stats=False).to(dtype="float64"))
    with pytest.raises(ValueError, match="mixes"):
        zero_centred_penalty(d.eval(), x, 1.0)


def test_layer_norm_is_welcome():
    d = mlp(3, normaliser=nn.LayerNorm(5).to(dtype="float64"))
    assert float(zero_centred_penalty(d, Tensor(values(1, 4, 6)), 1.0)) > 0


@pytest.mark.parametrize("wrapped", [False, True])
def test_probabilities_are_refused(wrapped):
    d = nn.Sequential(mlp(3), nn.Sequential(nn.Sigmoid()))
    d = Packed(InstanceNoise(d, rng=0), 1) if wrapped else d
    x = Tensor(values(1, 4, 6))
    with pytest.raises(ValueError, match=r"gradient_penalty: D ends with Sigmoid.*raw logits"):
        gradient_penalty(d, x, x, np.random.default_rng(0))
    if wrapped:
        with pytest.raises(ValueError, match="Game: D ends with Sigmoid"):
            discriminator_loss(a_game(d, [R1()]), x, x, None)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda d, x: gradient_penalty(d, x, x[:3], np.random.default_rng(0)),
            ValueError,
            r"as many of both",
        ),
        (lambda d, x: gradient_penalty(d, x, x, None), TypeError, r"rng=None; give a generator"),
        (lambda d, x: dragan_penalty(d, x, 3), TypeError, r"rng=3; give a generator"),
        (lambda d, x: zero_centred_penalty(lambda x: d(x).mean(), x, 1.0), ValueError, r"one logit for each"),
        (lambda d, x: zero_centred_penalty(lambda x: d(x)[:3], x, 1.0), ValueError, r"one logit for each"),
        (lambda d, x: zero_centred_penalty(lambda x: d(x.detach()), x, 1.0), ValueError, r"do not depend"),
    ],
)
def test_what_cannot_be_penalised(call, error, words):
    with pytest.raises(error, match=words):
        call(mlp(3), Tensor(values(1, 4, 6)))


# ----------------------------------------------------------------------------------------- terms


@pytest.mark.parametrize("name", ["gp", "gp-one-sided", "dragan", "r1", "r2"])
def test_a_term_adds_its_function_to_the_loss_of_d(name, backend):
    terms = {
        "gp": GradientPenalty(3.0),
        "gp-one-sided": GradientPenalty(3.0, one_sided=True, target=0.15),
        "dragan": DRAGAN(3.0),
        "r1": R1(3.0),
        "r2": R2(3.0),
    }
    d = mlp(3).to(backend)
    # so far out that some slopes are above 0.15, and others below
    x, fake = (Tensor(4 * values(i, 4, 6), backend=backend) for i in (1, 2))
    plain, *_ = discriminator_loss(a_game(d), x, fake, None)
    more, *_ = discriminator_loss(a_game(d, [terms[name]]), x, fake, np.random.default_rng(7))
    alone = PENALTY_FUNCTIONS[name](d, x, fake, np.random.default_rng(7), False)
    assert np.isclose(float(more), float(plain) + float(alone), rtol=1e-12)
    assert terms[name].generator(a_game(d), x, fake, None) is None


def test_where_d_is_an_autoencoder_its_error_has_the_slope():
    d = nn.Sequential(nn.Linear(6, 6, rng=0), nn.Lambda(mg.tanh)).to(dtype="float64")
    loss, x = BEGAN(), Tensor(values(1, 4, 6))
    found = R1(2.0).discriminator(a_game(d, loss=loss), x, x, None)
    assert np.isclose(float(found), float(zero_centred_penalty(lambda x: loss.logits(d, x), x, 2.0)))


def test_l2_is_weight_decay():
    d = nn.Sequential(nn.Linear(6, 4, rng=0), nn.LayerNorm((4,)), nn.Linear(4, 1, rng=1)).to(dtype="float64")
    found = L2(0.3).discriminator(a_game(d), None, None, None)
    sizes = [(layer.weight.numpy() ** 2).sum() for layer in (d[0], d[2])]
    assert np.isclose(float(found), 0.15 * sum(sizes))
    gradients = grad(found, d.parameters())
    for (name, p), g in zip(d.named_parameters(), gradients, strict=True):
        assert (g is None) == (name not in ("0.weight", "2.weight"))
        if g is not None:
            np.testing.assert_allclose(g.numpy(), 0.3 * p.numpy(), rtol=1e-12)
    assert L2().discriminator(a_game(nn.Sequential(nn.LayerNorm(6)).to(dtype="float64")), 0, 0, 0) is None


def test_l2_sees_through_spectral_norm():
    d = nn.Sequential(nn.spectral_norm(nn.Linear(6, 1, rng=0), rng=0))
    found = L2(2.0).discriminator(a_game(d), None, None, None)
    assert np.isclose(float(found), (d[0].weight_orig.numpy() ** 2).sum())


def test_clipping_after_each_step_of_d(backend):
    """As by hand: SGD with momentum, whose memory knows nothing of the clipping."""
    d = mlp(3).to(backend)
    optimizer = SGD(d.parameters(), lr=0.5, momentum=0.9)
    game = a_game(d, [WeightClipping(0.2)], Wasserstein(), optimizer)
    x, fake = (Tensor(values(i, 4, 6), backend=backend) for i in (1, 2))
    expected = [p.numpy().copy() for p in d.parameters()]
    momenta = [0.0] * len(expected)
    for _ in range(3):
        loss = d(fake).mean() - d(x).mean()
        gradients = grad(loss, d.parameters(), unreachable="zeros")
        momenta = [0.9 * m + g.numpy() for m, g in zip(momenta, gradients, strict=True)]
        expected = [np.clip(p - 0.5 * m, -0.2, 0.2) for p, m in zip(expected, momenta, strict=True)]
        discriminator_step(game, x, fake, Report())
        for p, e in zip(d.parameters(), expected, strict=True):
            np.testing.assert_allclose(p.numpy(), e, rtol=1e-10, atol=1e-12)
            assert p.backend == backend
    assert any((np.abs(e) == 0.2).any() for e in expected)
    assert any((np.abs(e) < 0.2).any() for e in expected)


def test_clipping_is_noticed_by_the_tape():
    d = mlp(3)
    y = d(Tensor(values(1, 4, 6))).sum()
    WeightClipping(0.01).constrain(d)
    with pytest.raises(RuntimeError, match="has been given a new value"):
        y.backward()


def test_clipping_keeps_precision_and_layout():
    d = nn.Sequential(nn.Linear(6, 2, rng=0), nn.Linear(2, 1, rng=0))
    strides = [p.data.strides for p in d.parameters()]
    game = a_game(d, [WeightClipping(0.01)], d_optimizer=RMSprop(d.parameters(), lr=5e-5))
    for _ in range(2):
        x = Tensor(values(1, 4, 6), dtype="float32")
        discriminator_step(game, x, -x, Report())
        assert all(
            p.dtype == "float32" and np.abs(p.numpy()).max() <= np.float32(0.01) for p in d.parameters()
        )
    assert [p.data.strides for p in d.parameters()] == strides


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit=0"):
        WeightClipping(0)


def test_spectral_norm_for_every_layer_with_a_weight():
    rng = np.random.default_rng(0)
    d = nn.Sequential(
        nn.Residual(
            nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, rng=rng), nn.LayerNorm((2, 4, 4)), nn.ReLU())
        ),
        nn.spectral_norm(nn.ConvTranspose2d(2, 3, 3, rng=rng), rng=rng),
        nn.Flatten(),
        nn.Maxout(108, 4, 2, rng=rng),
        nn.Linear(4, 1, rng=rng),
    )
    parameters = d.parameters()
    assert spectral(d, 1) is d
    names = [name for name, _ in d.named_parameters() if "orig" in name]
    assert names == ["0.body.0.weight_orig", "1.weight_orig", "3.weight_orig", "4.weight_orig"]
    assert set(map(id, d.parameters())) == set(map(id, parameters))  # an optimiser still has the right ones
    for layer in (d[0].body[0], d[3], d[4]):
        w = layer.weight.numpy()
        largest = np.linalg.svd(w.reshape(len(w), -1), compute_uv=False)[0]
        assert abs(largest - 1) < 0.02
    again = [p.numpy() for p in spectral(d, 2).parameters()]
    assert all((a == p.numpy()).all() for a, p in zip(again, d.parameters(), strict=True))


# ------------------------------------------------------------------------------- the Dirac-GAN


class Dirac(nn.Module):
    """G: all its images are the number θ."""

    def __init__(self, theta):
        self.theta = Tensor([[theta]], requires_grad=True)

    def forward(self, z):
        return z * 0 + self.theta


class Slope(nn.Module):
    """D(x) = ψ x"""

    def __init__(self, psi):
        self.psi = Tensor([[psi]], requires_grad=True)

    def forward(self, x):
        return x * self.psi


def moved(theta, psi, terms, loss, lr):
    """(θ, ψ) after one simultaneous step. The real images are all 0."""
    g, d = Dirac(theta), Slope(psi)
    game = Game(g, d, loss, SGD(g.parameters(), lr), SGD(d.parameters(), lr), terms)
    simultaneous_step(game, Tensor(np.zeros((2, 1))), Tensor(np.zeros((2, 1))), np.random.default_rng(0))
    return np.array([g.theta.item(), d.psi.item()])


def vector_field_jacobian(terms, loss=None, lr=0.1, step=1e-4):
    """∂(v_θ, v_ψ)/∂(θ, ψ) at (0, 0), where a step is w ← w + lr · v(w)"""
    columns = [
        (moved(*e, terms, loss or Minimax(), lr) - moved(*-e, terms, loss or Minimax(), lr)) / (2 * step)
        for e in step * np.eye(2)
    ]
    return (np.array(columns).T - np.eye(2)) / lr


def eigenvalues(jacobian):
    return sorted(np.linalg.eigvals(jacobian).astype(complex), key=lambda z: (z.real, z.imag))


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating()], ids=["minimax", "non-saturating"])
@pytest.mark.parametrize(
    "terms, expected",
    [
        ([], [-0.5j, 0.5j]),
        ([Consensus(1.0)], [-0.25 - 0.5j, -0.25 + 0.5j]),
        ([Consensus(0.4)], [-0.1 - 0.5j, -0.1 + 0.5j]),
        ([R1(0.3)], [-0.15 - 0.4769696j, -0.15 + 0.4769696j]),
        ([R2(0.3)], [-0.15 - 0.4769696j, -0.15 + 0.4769696j]),
        ([R1(2.0)], [-1.8660254, -0.1339746]),
        ([R1(0.15), R2(0.15)], [-0.15 - 0.4769696j, -0.15 + 0.4769696j]),
    ],
    ids=["alone", "consensus 1", "consensus 0.4", "r1 0.3", "r2 0.3", "r1 2", "r1 and r2"],
)
def test_dirac_gan(loss, terms, expected):
    """Mescheder et al. 2018: at the equilibrium the two circle, unless a penalty pulls them in."""
    np.testing.assert_allclose(eigenvalues(vector_field_jacobian(terms, loss)), expected, atol=1e-6)


def test_dirac_gan_with_the_critical_r1():
    """λ = -γ/2 ± √(γ²/4 - 1/4) has a double root at γ = 1: looked at by its sum and product."""
    jacobian = vector_field_jacobian([R1(1.0)])
    np.testing.assert_allclose([np.trace(jacobian), np.linalg.det(jacobian)], [-1, 0.25], atol=1e-6)


def test_dirac_wgan_circles():
    np.testing.assert_allclose(eigenvalues(vector_field_jacobian([], Wasserstein())), [-1j, 1j], atol=1e-6)


# --------------------------------------------------------------------------------------- consensus


def test_consensus_moves_both_down_their_common_term():
    """Against finite differences of ½ (‖∂L_D/∂θ_D‖² + ‖∂L_G/∂θ_G‖²) for all weights of both."""
    x, z, lr, gamma = Tensor(values(1, 4, 2)), Tensor(values(2, 4, 3)), 1e-3, 0.7

    def players(terms=()):
        g = nn.Sequential(nn.Linear(3, 2, rng=1), nn.Tanh()).to(dtype="float64")
        d = mlp(3, inputs=2)
        return Game(
            g, d, NonSaturating(), SGD(g.parameters(), lr), SGD(d.parameters(), lr), [R1(0.5), *terms]
        )

    def moves(game):
        before = [p.numpy().copy() for p in (*game.g.parameters(), *game.d.parameters())]
        simultaneous_step(game, x, z)
        after = [p.numpy() for p in (*game.g.parameters(), *game.d.parameters())]
        return [(b - a) / lr for b, a in zip(before, after, strict=True)]

    def length(game):
        return 0.5 * sum((m**2).sum() for m in moves(game))

    plain = moves(players())
    extra = [(m - p) / gamma for m, p in zip(moves(players([Consensus(gamma)])), plain, strict=True)]
    for seed in (0, 1):
        us = [values(seed, *m.shape) for m in plain]
        ends = []
        for t in (-1e-4, 1e-4):
            game = players()
            for p, u in zip((*game.g.parameters(), *game.d.parameters()), us, strict=True):
                p.data = p.numpy() + t * u
            ends.append(length(game))
        slope = (ends[1] - ends[0]) / 2e-4
        assert np.isclose(slope, sum((e * u).sum() for e, u in zip(extra, us, strict=True)), rtol=1e-5)


def test_consensus_needs_simultaneous_steps():
    game = a_game(mlp(3), [Consensus()])
    with pytest.raises(ValueError, match=r"Consensus .* needs simultaneous steps"):
        alternating_step(game, [Tensor(values(1, 4, 6))], [Tensor(values(2, 4, 3))])


# ---------------------------------------------------------------------------------------- wrappers


@pytest.mark.parametrize("shape, packed", [((6, 4), (2, 12)), ((6, 2, 3, 3), (2, 6, 3, 3))])
def test_packed_joins_neighbours_along_axis_1(shape, packed, backend):
    x, seen = Tensor(values(0, *shape), backend=backend), []

    def d(pack):
        seen.append(pack.numpy())
        return pack.reshape(2, -1).sum(axis=1)

    y = Packed(nn.Lambda(d), 3)(x)
    manual = np.stack([np.concatenate(x.numpy()[i : i + 3], axis=0) for i in (0, 3)])
    assert seen[0].shape == packed and (seen[0] == manual).all()
    assert y.shape == (2,)


def test_packed_has_the_parameters_and_gradients_of_d():
    inner = nn.Sequential(nn.Linear(8, 5, rng=0), nn.Tanh(), nn.Linear(5, 1, rng=1))
    d = Packed(inner, 2).to(dtype="float64")
    assert next(name for name, _ in d.named_parameters()) == "d.0.weight"
    assert gradcheck(d, values(0, 6, 4))
    with pytest.raises(ValueError, match=r"shape \(5, 4\).*multiple of m=2"):
        d(Tensor(values(0, 5, 4)))
    with pytest.raises(TypeError, match=r"wrap a function in nn\.Lambda"):
        Packed(lambda x: x)
    with pytest.raises(ValueError, match="m must be 1 or more"):
        Packed(inner, 0)


def test_the_slope_of_a_packed_critic_is_that_of_packs():
    w = Tensor(values(0, 8, 1), requires_grad=True)
    x, length = Tensor(values(1, 6, 4)), np.sqrt((w.numpy() ** 2).sum())
    d = Packed(nn.Lambda(lambda x: x @ w), 2)
    found = gradient_penalty(d, x, x + 1, np.random.default_rng(0))
    assert np.isclose(float(found), 10 * (length - 1) ** 2)


def test_a_step_with_a_packed_d():
    d = Packed(mlp(3, inputs=12), 2)
    game = a_game(d, [GradientPenalty()])
    before = [p.numpy().copy() for p in d.parameters()]
    report = alternating_step(
        game, [Tensor(values(1, 4, 6))], [Tensor(values(2, 4, 3))], np.random.default_rng(0)
    )
    assert report.loss_d > 0
    assert all((p.numpy() != b).any() for p, b in zip(d.parameters(), before, strict=True))


def test_instance_noise(backend):
    x = Tensor(values(0, 400, 50), backend=backend)
    d = InstanceNoise(nn.Lambda(lambda x: x), 0.3, rng=0)
    noise = (d(x) - x).numpy()
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    assert (d(x) != d(x)).any()  # new noise for each forward
    d.rng = np.random.default_rng(5)
    first = d(x).numpy()
    d.rng = np.random.default_rng(5)
    assert (d(x).numpy() == first).all()  # all from `rng`
    d.sigma = 0.6
    d.rng = np.random.default_rng(5)
    np.testing.assert_allclose((d(x) - x).numpy(), 2 * (first - x.numpy()), rtol=1e-9, atol=1e-12)
    assert (d.eval()(x) == x).all()
    d.train().sigma = 0.0
    assert (d(x) == x).all()


def test_instance_noise_keeps_precision_and_lets_gradients_through():
    d = InstanceNoise(nn.Linear(6, 1, rng=0), 0.3, rng=0)
    x = Tensor(values(0, 4, 6), dtype="float32", requires_grad=True)
    y = d(x)
    assert y.dtype == "float32"
    np.testing.assert_allclose(grad(y.sum(), x).numpy(), np.tile(d.d.weight.numpy(), (4, 1)))
    with pytest.raises(ValueError, match="sigma=-1"):
        InstanceNoise(nn.Linear(6, 1, rng=0), -1, rng=0)


# ------------------------------------------------------------------------------------------- names


def test_penalties_by_name():
    assert set(PENALTIES) == {
        "none", "gp", "gp-one-sided", "dragan", "r1", "r2", "r1-r2", "clip", "spectral", "l2", "consensus"
    }  # fmt: skip
    kinds = {name: [type(t) for t in penalty(name)] for name in PENALTIES if name != "spectral"}
    assert kinds["none"] == [] and kinds["r1-r2"] == [R1, R2] and kinds["clip"] == [WeightClipping]
    assert penalty("gp") == [GradientPenalty()] and penalty("consensus") == [Consensus()]
    assert penalty("gp-one-sided", weight=2.0) == [GradientPenalty(2.0, one_sided=True)]
    for name in kinds:
        for term in penalty(name):
            assert json.loads(json.dumps(term.settings()))["name"] == type(term).__name__


def test_the_name_spectral_changes_d():
    d = mlp(3)
    assert penalty("spectral", d, 0) == []
    assert "spectral_norm" in repr(d[0])
    with pytest.raises(ValueError, match="changes D itself"):
        penalty("spectral")


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="there is no 'wgan'; choose one of: none, gp"):
        penalty("wgan")
    with pytest.raises(ValueError, match=r"'r1' has no option gamma; it has weight, allow_mixing"):
        penalty("r1", gamma=1.0)
    with pytest.raises(ValueError, match=r"'none' has no option weight; it has none"):
        penalty("none", weight=1.0)
