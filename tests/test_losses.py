"""The GAN losses: each against its formula, finite differences, its limits, and what is known to go wrong.

r are the logits of real images, f those of fakes.
"""

import json
import math

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad, gradcheck, nn
from minigan.gan.began import BEGAN
from minigan.gan.by_name import LOSSES, loss
from minigan.gan.divergences import KL, FDivergence, JensenShannon, Pearson, ReverseKL, SquaredHellinger
from minigan.gan.feature_matching import FeatureMatching, cycle_consistency, feature_matching
from minigan.gan.gmmn import GMMN, mmd2
from minigan.gan.losses import (
    Hinge,
    LeastSquares,
    Loss,
    Minimax,
    NonSaturating,
    Wasserstein,
    objective,
)
from minigan.gan.relativistic import RelativisticAverage, RelativisticPairing
from minigan.optim import SGD
from minigan.tape import history

LOG2 = math.log(2)


def leaf(value, backend="numpy", dtype="float64"):
    return Tensor(value, requires_grad=True, backend=backend, dtype=dtype)


def values(seed, *shape):
    return np.random.default_rng([seed, *shape]).normal(size=shape) * 1.5


def close(a, b, rtol=1e-12, atol=1e-14):
    a, b = (x.numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# ---------------------------------------------------------------------------------- the formulas
# Written as in the papers, with elementary ops: L_D of (r, f), L_G of (f, r). Not fit for large logits.


def mean(x):
    return mg.mean(x)


def cross_entropy(target, probability):
    return mean(-(target * mg.log(probability) + (1 - target) * mg.log(1 - probability)))


def minimax(t=1.0):
    def d(r, f):
        return cross_entropy(t, mg.sigmoid(r)) + cross_entropy(0.0, mg.sigmoid(f))

    return d, lambda f, r: mean(mg.log(1 - mg.sigmoid(f)))


def non_saturating(t=1.0):
    return minimax(t)[0], lambda f, r: cross_entropy(1.0, mg.sigmoid(f))


def least_squares(a=0.0, b=1.0, c=1.0):
    return (
        lambda r, f: 0.5 * mean(mg.square(r - b)) + 0.5 * mean(mg.square(f - a)),
        lambda f, r: 0.5 * mean(mg.square(f - c)),
    )


def f_gan(g, conjugate, alternative=False):
    return (
        lambda r, f: mean(conjugate(g(f))) - mean(g(r)),
        lambda f, r: -mean(g(f)) if alternative else -mean(conjugate(g(f))),
    )


F_GANS = {  # g and f*, from the paper's tables
    "kl": (lambda v: v, lambda t: mg.exp(t - 1)),
    "reverse-kl": (lambda v: -mg.exp(-v), lambda t: -1 - mg.log(-t)),
    "pearson": (lambda v: v, lambda t: 0.25 * mg.square(t) + t),
    "hellinger": (lambda v: 1 - mg.exp(-v), lambda t: t / (1 - t)),
    "jensen-shannon": (lambda v: LOG2 - mg.log(1 + mg.exp(-v)), lambda t: -mg.log(2 - mg.exp(t))),
}


def balanced(k):
    began = BEGAN()
    began.k = k
    return began


def loops(x, y, bandwidths=(1.0, 3.0), unbiased=False):
    """MMD² one pair of points after the other."""

    def k(a, b):
        d2 = mg.square(a - b).sum()
        total = mg.exp(d2 * (-0.5 / bandwidths[0] ** 2))
        for s in bandwidths[1:]:
            total = total + mg.exp(d2 * (-0.5 / s**2))
        return total

    def average(a, b, skip=False):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (skip and i == j)]
        return sum((k(a[i], b[j]) for i, j in pairs), start=Tensor(0.0, backend=a.backend)) / len(pairs)

    return average(x, x, unbiased) + average(y, y, unbiased) - 2 * average(x, y)


CASES = {  # the loss, and its formulas for D and for G
    "minimax": (Minimax(), minimax()),
    "minimax, smoothed": (Minimax(real_target=0.9), minimax(0.9)),
    "non-saturating": (NonSaturating(), non_saturating()),
    "non-saturating, smoothed": (NonSaturating(real_target=0.8), non_saturating(0.8)),
    "least-squares": (LeastSquares(), least_squares()),
    "least-squares, -1 1 0": (LeastSquares(-1, 1, 0), least_squares(-1, 1, 0)),
    "hinge": (
        Hinge(),
        (lambda r, f: mean(mg.maximum(0.0, 1 - r)) + mean(mg.maximum(0.0, 1 + f)), lambda f, r: -mean(f)),
    ),
    "wasserstein": (Wasserstein(), (lambda r, f: mean(f) - mean(r), lambda f, r: -mean(f))),
    "rpgan": (
        RelativisticPairing(),
        (lambda r, f: mean(mg.log(1 + mg.exp(f - r))), lambda f, r: mean(mg.log(1 + mg.exp(r - f)))),
    ),
    "ragan": (
        RelativisticAverage(),
        (
            lambda r, f: (
                cross_entropy(1.0, mg.sigmoid(r - mean(f))) + cross_entropy(0.0, mg.sigmoid(f - mean(r)))
            ),
            lambda f, r: (
                cross_entropy(1.0, mg.sigmoid(f - mean(r))) + cross_entropy(0.0, mg.sigmoid(r - mean(f)))
            ),
        ),
    ),
    **{name: (loss(name), f_gan(*parts)) for name, parts in F_GANS.items()},
    **{
        f"{name}, non-saturating": (loss(name, non_saturating=True), f_gan(*parts, True))
        for name, parts in F_GANS.items()
    },
    "began": (balanced(0.3), (lambda r, f: mean(r) - 0.3 * mean(f), lambda f, r: mean(f))),
}


def test_every_loss_is_here():
    assert set(LOSSES) <= set(CASES)
    assert all(type(CASES[name][0]) is LOSSES[name] for name in LOSSES)


def points(seed):
    """Logits of real and fake images, away from the hinge's kinks."""
    r, f = values(seed, 4, 2), values(seed + 1, 4, 2)
    assert np.abs(np.abs([r, f]) - 1).min() > 1e-3
    return r, f


@pytest.mark.parametrize("name", CASES)
def test_discriminator_is_its_formula(name, backend):
    game, (formula, _) = CASES[name]
    r, f = (leaf(x, backend) for x in points(0))
    mine, theirs = game.discriminator(r, f), formula(r, f)
    assert mine.shape == ()
    close(mine, theirs)
    for a, b in zip(grad(mine, [r, f]), grad(theirs, [r, f]), strict=True):
        close(a, b, 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_generator_is_its_formula(name, backend):
    game, (_, formula) = CASES[name]
    r, f = (leaf(x, backend) for x in points(2))
    mine, theirs = game.generator(f, r), formula(f, r)
    assert mine.shape == ()
    close(mine, theirs)
    wanted = [f, r] if game.needs_real else [f]
    for a, b in zip(grad(mine, wanted), grad(theirs, wanted), strict=True):
        close(a, b, 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_discriminator_gradients(name, backend):
    gradcheck(CASES[name][0].discriminator, *(Tensor(x[:3], backend=backend) for x in points(4)))


@pytest.mark.parametrize("name", CASES)
def test_generator_gradients(name, backend):
    game = CASES[name][0]
    r, f = (Tensor(x[:3], backend=backend) for x in points(6))
    gradcheck(lambda f, r: game.generator(f, r), f, r, argnums=None if game.needs_real else 0)


def test_third_order():
    """Consensus optimisation and unrolled GANs differentiate gradients of gradients."""
    gradcheck(NonSaturating(0.9).discriminator, *points(8), order=3)


OPS = {"rpgan": ["rpgan_g", "sub"], "ragan": ["ragan_g", "sub", "mean", "sub", "mean"]}  # differences first


@pytest.mark.parametrize("name", CASES)
def test_to_the_tape_it_is_one_op(name):
    game = CASES[name][0]
    r, f = leaf(values(0, 3, 1)), leaf(values(1, 3, 1))
    ops = [node.name for node in history(game.generator(f, r).node) if node.name != "leaf"]
    assert sorted(ops) == sorted(OPS.get(name, [f"{game.name.replace('-', '_')}_g"]))


def both(game, r, f):
    """L_G, and L_D if there is one."""
    return [game.generator(f, r), game.discriminator(r, f)]


@pytest.mark.parametrize("name", CASES)
def test_precision_is_kept(name, backend):
    game = CASES[name][0]
    r, f = (leaf(x, backend, "float32") for x in points(0))
    made = both(game, r, f)
    assert {y.dtype.name for y in made} | {grad(y, f).dtype.name for y in made} == {"float32"}
    assert {y.backend for y in made} | {grad(y, f).backend for y in made} == {backend}


@pytest.mark.mutant
@pytest.mark.parametrize(
    "slope",
    [
        lambda r: mg.sigmoid(-r),
        lambda r: -mg.sigmoid(r),
        lambda r: -mg.sigmoid(-r) * 3,
        lambda r: Tensor((-mg.sigmoid(-r)).numpy()),
    ],
    ids=["sign", "argument", "factor n", "a saved array"],
)
def test_gradcheck_finds_a_wrong_slope(slope):
    with pytest.raises(mg.GradientError):
        gradcheck(lambda r: objective("mutant", (r, lambda r: mg.softplus(-r), slope)), values(0, 3, 1))


# ------------------------------------------------------------------------- logits of ±1000 (T10)

FAR = 1000.0
LIMITS_D = [  # loss, r, f, L_D, dL_D/dr, dL_D/df
    *((game, FAR, -FAR, 0, 0, 0) for game in (Minimax(), NonSaturating())),
    *((game, -FAR, FAR, 2000, -1, 1) for game in (Minimax(), NonSaturating())),
    (NonSaturating(), FAR, FAR, 1000, 0, 1),
    (NonSaturating(), -FAR, -FAR, 1000, -1, 0),
    (NonSaturating(0.9), FAR, -FAR, 100, 0.1, 0),
    (NonSaturating(0.9), -FAR, FAR, 1900, -0.9, 1),
    (LeastSquares(), FAR, -FAR, (999**2 + 1000**2) / 2, 999, -1000),
    (LeastSquares(), -FAR, FAR, (1001**2 + 1000**2) / 2, -1001, 1000),
    (Hinge(), FAR, -FAR, 0, 0, 0),
    (Hinge(), -FAR, FAR, 2002, -1, 1),
    (Wasserstein(), FAR, -FAR, -2000, -1, 1),
    (Wasserstein(), -FAR, FAR, 2000, -1, 1),
    (RelativisticPairing(), FAR, -FAR, 0, 0, 0),
    (RelativisticPairing(), -FAR, FAR, 2000, -1, 1),
    (RelativisticPairing(), FAR, FAR, LOG2, -0.5, 0.5),
    (RelativisticAverage(), FAR, -FAR, 0, 0, 0),
    (RelativisticAverage(), -FAR, FAR, 4000, -2, 2),
    (RelativisticAverage(), -FAR, -FAR, 2 * LOG2, -1, 1),
    (KL(), FAR, -FAR, -1000, -1, 0),
    (KL(), -FAR, -FAR, 1000, -1, 0),
    (ReverseKL(), FAR, -FAR, -1001, 0, 1),
    (ReverseKL(), FAR, FAR, 999, 0, 1),
    (Pearson(), FAR, -FAR, 248_000, -1, -499),
    (Pearson(), -FAR, FAR, 252_000, -1, 501),
    (SquaredHellinger(), FAR, -FAR, -2, 0, 0),
    (JensenShannon(), FAR, -FAR, -2 * LOG2, 0, 0),
    (JensenShannon(), -FAR, FAR, 2000 - 2 * LOG2, -1, 1),
    (balanced(0.5), FAR, -FAR, 1500, 1, -0.5),
    (balanced(0.5), -FAR, FAR, -1500, 1, -0.5),
]
LIMITS_G = [  # loss, r, f, L_G, dL_G/df
    (Minimax(), 0, -FAR, 0, 0),
    (Minimax(), 0, FAR, -1000, -1),
    (NonSaturating(), 0, -FAR, 1000, -1),
    (NonSaturating(), 0, FAR, 0, 0),
    (LeastSquares(), 0, -FAR, 1001**2 / 2, -1001),
    (LeastSquares(), 0, FAR, 999**2 / 2, 999),
    *((game, 0, f, -f, -1) for game in (Hinge(), Wasserstein()) for f in (-FAR, FAR)),
    (RelativisticPairing(), FAR, -FAR, 2000, -1),
    (RelativisticPairing(), -FAR, FAR, 0, 0),
    (RelativisticAverage(), FAR, -FAR, 4000, -2),
    (RelativisticAverage(), -FAR, FAR, 0, 0),
    (KL(), 0, -FAR, 0, 0),
    *((KL(True), 0, f, -f, -1) for f in (-FAR, FAR)),
    *((ReverseKL(), 0, f, 1 - f, -1) for f in (-FAR, FAR)),
    (ReverseKL(True), 0, FAR, 0, 0),
    (Pearson(), 0, FAR, -251_000, -501),
    (Pearson(), 0, -FAR, -249_000, 499),
    *((Pearson(True), 0, f, -f, -1) for f in (-FAR, FAR)),
    (SquaredHellinger(), 0, -FAR, 1, 0),
    (SquaredHellinger(True), 0, FAR, -1, 0),
    (JensenShannon(), 0, -FAR, LOG2, 0),
    (JensenShannon(), 0, FAR, LOG2 - 1000, -1),
    (JensenShannon(True), 0, -FAR, 1000 - LOG2, -1),
    (JensenShannon(True), 0, FAR, -LOG2, 0),
    *((BEGAN(), 0, f, f, 1) for f in (-FAR, FAR)),
]


def named(row):
    return "-".join(f"{x:.6g}" if isinstance(x, (int, float)) else repr(x) for x in row[:3])


def test_every_loss_has_limits():
    assert {type(row[0]) for row in LIMITS_D} == set(LOSSES.values())
    assert {type(row[0]) for row in LIMITS_G} == set(LOSSES.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", LIMITS_D, ids=named)
def test_discriminator_far_out(row, dtype):
    game, r, f, value, dr, df = row
    r, f = leaf([[r]], dtype=dtype), leaf([[f]], dtype=dtype)
    y = game.discriminator(r, f)
    tiny = float(np.finfo(dtype).eps)
    close(y, value, rtol=2 * tiny, atol=1e-30)
    for mine, limit in zip(grad(y, [r, f]), (dr, df), strict=True):
        close(mine, [[limit]], rtol=4 * tiny, atol=1e-30)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", LIMITS_G, ids=named)
def test_generator_far_out(row, dtype):
    game, r, f, value, df = row
    r, f = Tensor([[r]], dtype=dtype), leaf([[f]], dtype=dtype)
    y = game.generator(f, r)
    tiny = float(np.finfo(dtype).eps)
    close(y, value, rtol=2 * tiny, atol=1e-30)
    close(grad(y, f), [[df]], rtol=4 * tiny, atol=1e-30)


@pytest.mark.parametrize(
    ("game", "r", "f"),
    [(KL(), 0, FAR), (ReverseKL(), -FAR, 0), (SquaredHellinger(), -FAR, 0), (SquaredHellinger(), 0, FAR)],
    ids=repr,
)
def test_where_the_mathematics_is_exponential_the_loss_is_infinite_and_says_so(game, r, f):
    with pytest.warns(RuntimeWarning, match="overflow"):
        y = game.discriminator(Tensor([[r]], dtype="float64"), Tensor([[f]], dtype="float64"))
    assert float(y) == math.inf


# -------------------------------------------------------------------------------- means, not sums (T11)


@pytest.mark.parametrize("name", CASES)
def test_copies_change_nothing(name):
    """Doubling the batch with copies leaves the losses as they are, and the gradient of D's weights too."""
    game = CASES[name][0]
    x, z = values(0, 3, 1), values(1, 3, 1)

    def losses(copies):
        w = leaf([[0.7, -0.2]])
        r, f = (Tensor(np.concatenate([a] * copies)) @ w for a in (x, z))
        return [(float(y), grad(y, w).numpy()) for y in both(game, r, f)]

    for (value, slope), (value_twice, slope_twice) in zip(losses(1), losses(2), strict=True):
        close(value_twice, value)
        close(slope_twice, slope)


@pytest.mark.parametrize("name", CASES)
def test_logits_of_patches(name):
    """PatchGAN: D gives each image a small map of logits. All of them count alike."""
    game = CASES[name][0]
    r, f = leaf(values(0, 2, 1, 3, 2)), leaf(values(1, 2, 1, 3, 2))
    flat = [x.reshape(12) for x in (r, f)]
    for mine, theirs in (
        (game.discriminator(r, f), game.discriminator(*flat)),
        (game.generator(f, r), game.generator(flat[1], flat[0])),
    ):
        close(mine, theirs)
        slope = grad(mine, f)
        assert slope.shape == f.shape
        close(slope, grad(theirs, f))


def test_through_a_network(backend):
    """The derivative of a whole loss in D's weights, at losses whose slopes are plain numbers too."""
    d = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 1, rng=1)).to(backend, "float64")
    x, z = (Tensor(values(i, 5, 3), backend=backend) for i in range(2))
    weights = d.parameters()
    for game in (Wasserstein(), NonSaturating()):
        d.zero_grad()
        game.discriminator(game.logits(d, x), game.logits(d, z)).backward()
        w, step = weights[0], 1e-6
        found = w.grad.numpy()[1, 2]
        around = []
        for sign in (1, -1):
            nudge = np.zeros(w.shape)
            nudge[1, 2] = sign * step
            w.data = w.data + Tensor(nudge, backend=backend).data
            around.append(float(game.discriminator(d(x), d(z))))
            w.data = w.data - Tensor(nudge, backend=backend).data
        close(found, (around[0] - around[1]) / (2 * step), rtol=1e-6)


# -------------------------------------------------------------------------- what is known to go wrong


def slope_of_g(game, f):
    f = leaf(f)
    return grad(game.generator(f, Tensor(np.zeros(f.shape))), f).numpy()


def test_non_saturating_does_not_saturate():
    """N7: -log(σ(f) + 1e-8) has slope -4e-10 at f = -40. The true slope of the mean is -1/n."""
    f = np.full((5, 1), -40.0)
    close(slope_of_g(NonSaturating(), f), np.full((5, 1), -1 / 5))
    close(slope_of_g(Minimax(), f), np.full((5, 1), -math.exp(-40) / 5))  # the original game does

    def with_epsilon(f):
        return mg.mean(-mg.log(mg.sigmoid(f) + 1e-8))

    leaf_f = leaf(f)
    assert np.abs(grad(with_epsilon(leaf_f), leaf_f).numpy()).max() < 1e-9


def test_saturation_at_a_millionth():
    """T6: where D gives a fake the probability 1e-6, G's slope is 1e-6 in one game and 1 in the other."""
    f = [math.log(1e-6 / (1 - 1e-6))]
    close(slope_of_g(Minimax(), f), [-1e-6], rtol=1e-9)
    close(slope_of_g(NonSaturating(), f), [-(1 - 1e-6)], rtol=1e-12)


COUNTS = np.array([1, 2, 3, 4, 2]), np.array([4, 3, 2, 1, 5])  # how many real and fake images at five places


def on_places(v):
    """The raw outputs for all images, if D gives the images at place i the output v[i]."""
    return [v[np.repeat(np.arange(len(count)), count)] for count in COUNTS]


@pytest.mark.parametrize("t", [1.0, 0.9, 0.7])
def test_best_discriminator(t):
    """T7: with one-sided smoothing t, the best D is t p / (p + q): where there is no p, it is 0."""
    p, q = (count / count.sum() for count in COUNTS)
    v = leaf(np.zeros(5))
    for _ in range(20):  # Newton's method; each place has its own minimum
        slope = grad(NonSaturating(t).discriminator(*on_places(v)), v, create_graph=True)
        curvature = grad(slope.sum(), v)
        v.data = v.data - slope.data / curvature.data
    close(mg.sigmoid(v), t * p / (p + q), rtol=1e-9)


@pytest.mark.parametrize("t", [1.0, 0.9])
def test_where_there_are_only_fakes_d_goes_down_for_ever(t):
    """T7: no logit is low enough there. (With a target of 0.1 for fakes it would be log(0.1 / 0.9).)"""
    for logit in (5.0, -2.2, -30.0):
        f = leaf([[logit]])
        assert float(grad(NonSaturating(t).discriminator(Tensor([[3.0]]), f), f)) > 0


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_two_sided_smoothing_is_refused(name):
    with pytest.raises(ValueError, match=r"a p \+ b q.*only fakes \(p = 0\).*b and not 0"):
        loss(name, real_target=0.9, fake_target=0.1)
    assert loss(name, real_target=0.9, fake_target=0.0).real_target == 0.9
    for wrong in (0.0, -0.1, 1.1):
        with pytest.raises(ValueError, match="real_target"):
            loss(name, real_target=wrong)


def test_a_sigmoid_too_many_is_another_loss():
    """T10: D must end in logits. With probabilities for logits, L_D never falls below 1.006."""
    good = NonSaturating().discriminator(Tensor([[9.0]]), Tensor([[-9.0]]))
    twice = NonSaturating().discriminator(mg.sigmoid(Tensor([[9.0]])), mg.sigmoid(Tensor([[-9.0]])))
    assert float(good) < 1e-3 < 1 < float(twice)


@pytest.mark.parametrize("name", ["rpgan", "ragan"])
def test_relativistic_generator_looks_at_real_images(name):
    """N2: in a well-known collection it is computed, and then overwritten with the plain cross-entropy."""
    game, f = loss(name), leaf(values(0, 4, 1))
    low, high = Tensor(values(1, 4, 1)), Tensor(values(1, 4, 1) + 3)
    assert float(game.generator(f, low)) < float(game.generator(f, high))
    plain = NonSaturating().generator(f)
    assert abs(float(game.generator(f, low)) - float(plain)) > 0.05
    assert np.abs(grad(game.generator(f, low), f).numpy() - grad(plain, f).numpy()).max() > 0.01
    with pytest.raises(ValueError, match="real_logits"):
        game.generator(f)


@pytest.mark.parametrize("name", ["rpgan", "ragan"])
def test_relativistic_losses_see_differences_only(name):
    game = loss(name)
    r, f = Tensor(values(0, 4, 1)), Tensor(values(1, 4, 1))
    close(game.discriminator(r + 7.0, f + 7.0), game.discriminator(r, f))
    close(game.generator(f + 7.0, r + 7.0), game.generator(f, r))


def test_relativistic_average_gradients_by_hand():
    """The gradients of its docstring, with batches of different sizes."""
    r, f = leaf(values(0, 3, 1)), leaf(values(1, 5, 1))
    s = mg.sigmoid
    a, b = (r - f.mean()).detach(), (f - r.mean()).detach()
    dr, df = grad(RelativisticAverage().discriminator(r, f), [r, f])
    close(dr, -(s(-a) + s(b).mean()) / 3)
    close(df, (s(b) + s(-a).mean()) / 5)
    df, dr = grad(RelativisticAverage().generator(f, r), [f, r])
    close(dr, (s(a) + s(-b).mean()) / 3)
    close(df, -(s(-b) + s(a).mean()) / 5)


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_equilibrium(name):
    """T13: where D cannot tell real from fake, L_D = 2 log 2."""
    zeros = Tensor(np.zeros((6, 1)))
    close(loss(name).discriminator(zeros, zeros), 2 * LOG2)
    close(loss(name).mean_output(zeros), 0.5)


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (Minimax(), (2 * LOG2, -LOG2)),
        (NonSaturating(), (2 * LOG2, LOG2)),
        (NonSaturating(real_target=0.9), (1.37627, 0.79851)),  # D* = 0.45
        (LeastSquares(), (0.25, 0.125)),
        (RelativisticPairing(), (LOG2, LOG2)),
        (RelativisticAverage(), (2 * LOG2, 2 * LOG2)),
        (JensenShannon(), (0.0, 0.0)),
    ],
    ids=repr,
)
def test_where_training_would_end(game, expected):
    """At the same logits everywhere, no step of all logits together makes L_D smaller."""
    close(game.equilibrium, expected, atol=1e-5)
    at = lambda v: float(game.discriminator(*2 * [Tensor([game.equilibrium_logit + v])]))
    assert min(at(-0.01), at(0.01)) >= at(0)


@pytest.mark.parametrize("game", [Hinge(), Wasserstein(), BEGAN()], ids=repr)
def test_no_single_end(game):
    assert game.equilibrium is None


@pytest.mark.parametrize("game", [Hinge(), LeastSquares(), Wasserstein()], ids=repr)
def test_everybody_wants_logits_of_real_images_higher(game):
    r, f = leaf([[-0.5], [0.3]]), leaf([[0.4], [-0.2]])
    dr, df = grad(game.discriminator(r, f), [r, f])
    assert (dr.numpy() < 0).all()
    assert (df.numpy() > 0)[0]
    assert (grad(game.generator(f), f).numpy() < 0).all()


def test_hinge_is_content_beyond_its_margin():
    r, f = leaf([0.5, 1.0, 2.0]), leaf([-0.5, -1.0, -2.0])
    dr, df = grad(Hinge().discriminator(r, f), [r, f])
    close(dr, [-1 / 3, 0, 0])  # at the kink itself 0, as relu has it
    close(df, [1 / 3, 0, 0])


# ------------------------------------------------------------------------------------- divergences

GENERATING = {  # f of the divergence ∫ q f(p/q), and the raw output v at which T = f'(u)
    "kl": (lambda u: u * np.log(u), lambda u: 1 + np.log(u)),
    "reverse-kl": (lambda u: -np.log(u), np.log),
    "pearson": (lambda u: (u - 1) ** 2, lambda u: 2 * (u - 1)),
    "hellinger": (lambda u: (np.sqrt(u) - 1) ** 2, lambda u: np.log(u) / 2),
    "jensen-shannon": (lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2), np.log),
}


@pytest.mark.parametrize("name", GENERATING)
def test_the_bound_is_the_divergence_at_the_best_discriminator(name):
    f, best = GENERATING[name]
    p, q = (count / count.sum() for count in COUNTS)
    divergence = (q * f(p / q)).sum()
    v = leaf(best(p / q))
    bound = -loss(name).discriminator(*on_places(v))
    close(bound, divergence)
    assert np.abs(grad(bound, v).numpy()).max() < 1e-15
    rng = np.random.default_rng(0)
    for _ in range(20):
        elsewhere = Tensor(best(p / q) + rng.normal(size=5))
        assert -float(loss(name).discriminator(*on_places(elsewhere))) < divergence


def test_two_known_divergences():
    p, q = (count / count.sum() for count in COUNTS)
    m = (p + q) / 2
    kl, js = GENERATING["kl"][0], GENERATING["jensen-shannon"][0]
    close((q * kl(p / q)).sum(), (p * np.log(p / q)).sum())
    close((q * js(p / q)).sum(), (p * np.log(p / m)).sum() + (q * np.log(q / m)).sum())


def test_jensen_shannon_is_the_original_game():
    r, f = Tensor(values(0, 4, 1)), Tensor(values(1, 4, 1))
    close(JensenShannon().discriminator(r, f) + 2 * LOG2, Minimax().discriminator(r, f))
    close(JensenShannon().generator(f) - LOG2, Minimax().generator(f))
    close(JensenShannon(non_saturating=True).generator(f) + LOG2, NonSaturating().generator(f))
    close(JensenShannon().mean_output(f), NonSaturating().mean_output(f))


def test_all_activations_rise():
    """D's output is to be higher for real images, whatever the divergence."""
    v = Tensor(np.linspace(-4, 4, 9))
    for cls in FDivergence.__subclasses__():
        assert (np.diff(cls.activation.value(v).numpy()) > 0).all()


# ------------------------------------------------------------------------------------------- BEGAN


def test_began_judges_by_the_error_of_copying(backend):
    halve = nn.Lambda(lambda x: x * 0.5)
    x = Tensor(values(0, 3, 1, 4, 4), backend=backend)
    error = BEGAN().logits(halve, x)
    assert error.shape == (3,)
    close(error, np.abs(x.numpy() * 0.5).mean(axis=(1, 2, 3)))
    with pytest.raises(ValueError, match=r"\(3, 16\).*\(3, 1, 4, 4\).*autoencoder"):
        BEGAN().logits(nn.Flatten(), x)
    gradcheck(lambda x: BEGAN().logits(halve, x), x.numpy())


def test_began_keeps_its_balance():
    game = BEGAN(gamma=0.5, lambda_k=0.1)
    assert game.k == 0
    real, copied_too_well, copied_badly = Tensor([1.0, 3.0]), Tensor([0.2, 0.4]), Tensor([5.0, 7.0])
    game.after_discriminator_step(real, copied_too_well)
    close(game.k, 0.1 * (0.5 * 2.0 - 0.3))  # D is to care more about fakes
    before = game.k
    game.after_discriminator_step(real, Tensor([1.0, 1.0]))
    assert game.k == before  # γ mean r = mean f
    game.after_discriminator_step(real, copied_badly)
    assert game.k == 0  # never below
    for _ in range(30):
        game.after_discriminator_step(real, copied_too_well)
    assert game.k == 1  # never above


def test_began_uses_the_balance_of_its_time():
    """The gradient belongs to the k with which the loss was computed."""
    game, r, f = balanced(0.25), leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = game.discriminator(r, f)
    game.k = 0.75
    close(grad(y, f), [-0.125, -0.125])


def test_began_remembers_its_balance():
    game, other = balanced(0.37), BEGAN()
    state = game.state_dict()
    assert isinstance(state["k"], np.ndarray)
    other.load_state_dict(state)
    assert other.k == 0.37
    assert "k" not in game.settings()
    with pytest.raises(ValueError, match="remembers"):
        other.load_state_dict({})
    with pytest.raises(ValueError, match="another loss"):
        Hinge().load_state_dict(state)
    Hinge().load_state_dict(Hinge().state_dict())
    with pytest.raises(ValueError, match="gamma=2"):
        BEGAN(gamma=2)


# -------------------------------------------------------------------------------------------- GMMN


def gmmn(*bandwidths, **options):
    """A GMMN whose G makes points in the plane."""
    g = nn.Linear(3, 2, rng=0, dtype="float64")
    return GMMN(g, SGD(g.parameters(), 0.5), *[bandwidths] * bool(bandwidths), **options)


GMMNS = {
    "squared": (gmmn(1, 3), loops),
    "unbiased": (gmmn(1, 3, unbiased=True), lambda r, f: loops(r, f, unbiased=True)),
    "root": (gmmn(1, 3, root=True), lambda r, f: mg.sqrt(loops(r, f))),
}


@pytest.mark.parametrize("name", GMMNS)
def test_gmmn_is_its_formula(name, backend):
    alone, formula = GMMNS[name]
    r, f = (leaf(x, backend) for x in points(2))
    mine, theirs = alone.loss(r, f), formula(r, f)
    assert mine.shape == ()
    close(mine, theirs)
    for a, b in zip(grad(mine, [f, r]), grad(theirs, [f, r]), strict=True):
        close(a, b, 1e-11)
    gradcheck(alone.loss, *(Tensor(x[:3], backend=backend) for x in points(6)))


def test_gmmn_far_out():
    for dtype in ("float32", "float64"):
        real, near, far = (leaf([[x]], dtype=dtype) for x in (FAR, FAR, -FAR))
        assert float(gmmn().loss(real, far)) == 12  # two points far apart: 1 + 1 for each of six kernels
        assert float(gmmn().loss(real, near)) == 0


def test_gmmn_in_a_step_moves_along_its_gradient():
    alone, x, z = gmmn(0.7, 2.0), Tensor(values(0, 5, 2)), Tensor(values(1, 4, 3))
    before = [p.data for p in alone.g.parameters()]
    slopes = grad(alone.loss(x, alone.g(z)), alone.g.parameters())
    report = alone.step(x, z)
    for p, start, slope in zip(alone.g.parameters(), before, slopes, strict=True):
        close(p, start - 0.5 * slope.data)
        assert p.grad is None
    later = [alone.step(x, z).loss_g for _ in range(30)]
    assert float(later[-1]) < 0.5 * float(report.loss_g)
    assert math.isnan(report.loss_d)


def test_gmmn_of_equal_and_unequal_sets(backend):
    x = Tensor(values(0, 6, 3), backend=backend)
    assert abs(float(mmd2(x, x, (0.5, 2.0)))) < 1e-14
    assert abs(float(mmd2(x, x[[3, 0, 5, 1, 2, 4]], (0.5, 2.0)))) < 1e-14  # the order does not count
    assert float(mmd2(x, x + 0.5, (0.5, 2.0))) > 1e-3
    f = leaf(x.numpy(), backend)
    for alone in (gmmn(0.5, 2.0), gmmn(0.5, 2.0, root=True)):
        assert np.abs(grad(alone.loss(x, f), f).numpy()).max() < 1e-7


def test_gmmn_root_of_nothing_has_no_slope(backend):
    """Two equal sets of one point: MMD² is exactly 0, where √ is infinitely steep."""
    x, f = Tensor([[1.0, 2.0]], backend=backend), leaf([[1.0, 2.0]], backend)
    y = gmmn(root=True).loss(x, f)
    assert float(y) == 0
    close(grad(y, f), [[0.0, 0.0]])


def test_gmmn_unbiased_is_right_on_average():
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(2, 4, 1)) for _ in range(2000)]
    biased, unbiased = (
        np.array([float(mmd2(x, y, (1.0,), unbiased=flag)) for x, y in draws]) for flag in (False, True)
    )
    error = unbiased.std() / math.sqrt(len(draws))
    assert abs(unbiased.mean()) < 4 * error < biased.mean() / 4


def test_gmmn_brings_the_fakes_to_the_data():
    rng = np.random.default_rng(1)
    x, f = Tensor(rng.normal(3, 0.5, (20, 2))), leaf(rng.normal(0, 0.5, (20, 2)))
    alone, start = gmmn(1, 2, 4), None
    for _ in range(300):
        y = alone.loss(x, f)
        start = start or float(y)
        f.data = f.data - 2.0 * grad(y, f).data
    assert float(y) < 0.02 * start
    # the median: one or two points are pushed out of the crowd on its way, and come home late
    assert np.abs(np.median(f.numpy(), 0) - np.median(x.numpy(), 0)).max() < 0.2


def test_gmmn_takes_images_for_points():
    x, y = Tensor(values(0, 2, 1, 3, 3)), Tensor(values(1, 2, 1, 3, 3))
    close(gmmn(1).loss(x, y), gmmn(1).loss(x.reshape(2, 9), y.reshape(2, 9)))


def test_gmmn_says_which_options_do_not_fit():
    with pytest.raises(ValueError, match="bandwidths"):
        gmmn(1.0, 0.0)
    with pytest.raises(ValueError, match="negative"):
        gmmn(unbiased=True, root=True)


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((3, 2), (3, 4)), {}),
        (((3,), (3,)), {}),
        (((0, 2), (3, 2)), {}),
        (((1, 2), (3, 2)), {"unbiased": True}),
    ],
)
def test_gmmn_says_what_does_not_fit(shapes, options):
    with pytest.raises(ValueError, match="mmd2: "):
        mmd2(np.zeros(shapes[0]), np.zeros(shapes[1]), **options)


# ------------------------------------------------------------------------------------------- terms


def test_feature_matching(backend):
    d = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 1, rng=1)).to(backend, "float64")
    real, fake = Tensor(values(0, 5, 3), backend=backend), leaf(values(1, 2, 3), backend)
    expected = np.square(d[:2](real).numpy().mean(0) - d[:2](fake).numpy().mean(0)).sum()
    term = FeatureMatching(d[:2], weight=0.5)
    with nn.frozen(d):
        y = term.generator(None, real, fake)
    close(y, 0.5 * expected)
    assert grad(y, fake).shape == (2, 3)
    assert not {"linear_weight"} & {node.name for node in history(y.node)}
    assert term.discriminator(None, real, fake, None) is None
    assert float(FeatureMatching(d[:2]).generator(None, real, real)) == 0
    gradcheck(lambda a, b: feature_matching(mg.tanh(a), mg.tanh(b)), values(0, 3, 2, 2), values(1, 2, 2, 2))
    with pytest.raises(ValueError, match=r"\(5, 3\).*\(2, 4\)"):
        feature_matching(Tensor(np.zeros((5, 3))), Tensor(np.zeros((2, 4))))
    assert json.loads(json.dumps(term.settings()))["weight"] == 0.5


def test_feature_matching_by_hand():
    real, fake = Tensor(values(0, 5, 3)), leaf(values(1, 2, 3))
    slope = -2 * (real.numpy().mean(0) - fake.numpy().mean(0)) / 2
    close(grad(feature_matching(real, fake), fake), np.stack([slope, slope]))


def test_cycle_consistency(backend):
    x, back = Tensor(values(0, 2, 3, 2, 2), backend=backend), leaf(values(1, 2, 3, 2, 2), backend)
    y = cycle_consistency(x, back)
    close(y, np.abs(x.numpy() - back.numpy()).mean())
    close(grad(y, back), -np.sign(x.numpy() - back.numpy()) / 24)
    assert float(cycle_consistency(x, x)) == 0
    with pytest.raises(ValueError, match=r"\(2, 3, 2, 2\).*\(2, 3\)"):
        cycle_consistency(x, Tensor(np.zeros((2, 3)), backend=backend))


# ------------------------------------------------------------------------------------ names, manners


@pytest.mark.parametrize("name", CASES)
def test_settings_make_the_same_loss_again(name):
    game = CASES[name][0]
    settings = game.settings()
    assert settings == json.loads(json.dumps(settings))
    again = loss(**settings)
    assert type(again) is type(game)
    assert again.settings() == settings
    assert settings["name"] in LOSSES
    assert LOSSES[settings["name"]] is type(game)


def test_names_say_what_there_is():
    with pytest.raises(ValueError, match=r"'wgan'.*non-saturating.*wasserstein.*began"):
        loss("wgan")
    with pytest.raises(ValueError, match=r"'least-squares' has no option d; it has a, b, c"):
        loss("least-squares", d=1)
    with pytest.raises(ValueError, match=r"it has none"):
        loss("hinge", margin=2)


@pytest.mark.parametrize("name", CASES)
def test_mean_output(name, backend):
    """What is printed during training: a number of the same backend, and no history."""
    game, v = CASES[name][0], leaf([[0.0], [2.0]], backend)
    mean = game.mean_output(v)
    assert mean.shape == () and not mean.requires_grad
    assert mean.backend == backend
    probability = isinstance(game, (Minimax, JensenShannon))
    close(float(mean), (0.5 + 1 / (1 + math.exp(-2))) / 2 if probability else 1.0)


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_learn_from_is_an_error(name):
    game, none = CASES[name][0], Tensor(np.zeros((0, 1)))
    with pytest.raises(ValueError, match="nothing to average"):
        game.discriminator(none, none)


def test_pairs_must_match():
    r, f = Tensor(np.zeros((4, 1))), Tensor(np.zeros((3, 1)))
    for attempt in (lambda: loss("rpgan").discriminator(r, f), lambda: loss("rpgan").generator(f, r)):
        with pytest.raises(ValueError, match=r"RelativisticPairing.*\(4, 1\).*\(3, 1\).*paired"):
            attempt()
    with pytest.raises(ValueError, match="equal"):  # would broadcast to 4 × 4 pairs
        loss("rpgan").discriminator(r, Tensor(np.zeros(4)))


def test_a_loss_of_your_own_needs_two_functions():
    class Mine(Loss):
        pass

    v = Tensor([0.0])
    with pytest.raises(NotImplementedError, match="Mine must define discriminator"):
        Mine().discriminator(v, v)
    with pytest.raises(NotImplementedError, match="Mine must define generator"):
        Mine().generator(v)
    assert Mine().after_discriminator_step(v, v) is None
