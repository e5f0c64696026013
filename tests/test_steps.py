"""The steps of D and G: their whole gradients against finite differences, who moves, and in which order."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from gan_games import (
    ByHand,
    by_differences,
    close,
    drawing,
    images,
    loss_of_d,
    loss_of_g,
    memory,
    mlp,
    networks,
    noise,
    recall,
    same,
    small_game,
    terms_rng,
    used_by,
    values,
)
from small_runs import small_trainer

import minigan as mg
from minigan import Tensor, grad, nn
from minigan.finite import NonFiniteError, all_finite, checked
from minigan.gan import (
    FeatureMatching,
    Game,
    Hinge,
    JensenShannon,
    LeastSquares,
    Minimax,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Report,
    Term,
    Unrolled,
    Wasserstein,
    alternating_step,
    discriminator_loss,
    discriminator_step,
    generator_loss,
    generator_step,
    simultaneous_step,
)
from minigan.gan.began import BEGAN
from minigan.gan.consensus import Consensus
from minigan.gan.discriminator_wrappers import InstanceNoise, Packed
from minigan.gan.penalties import DRAGAN, R1, R2, GradientPenalty
from minigan.gan.steps import opponent
from minigan.gan.weight_limits import L2, WeightClipping
from minigan.optim import SGD, Adam
from minigan.tape import history
from minigan.training import EMA

# --------------------------------------------------- the gradient of a whole step, number by number


def began():
    loss = BEGAN(lambda_k=0.5)
    loss.k = 0.3
    return loss


LOSSES = {
    "non-saturating": NonSaturating,
    "smoothed": lambda: NonSaturating(real_target=0.9),
    "minimax": Minimax,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
    "rpgan": RelativisticPairing,
    "ragan": RelativisticAverage,
    "least-squares": LeastSquares,
    "jensen-shannon": JensenShannon,
}
SGD_AHEAD = {"optimizer": "sgd", "lr": 0.5}
ADAM_AHEAD = {"optimizer": "adam", "lr": 0.3, "betas": (0.5, 0.9), "eps": 0.1}

CASES = {
    f"{name}, {who}": (who, {"loss": make}) for name, make in LOSSES.items() for who in ("mlp", "batch norm")
}
CASES |= {f"non-saturating, {who}": (who, {}) for who in ("conv", "patches", "dropout", "minibatch stddev")}
CASES |= {
    "began": ("autoencoder", {"loss": began}),
    "gp": ("mlp", {"terms": [GradientPenalty()]}),
    "gp, one-sided": ("mlp", {"terms": [GradientPenalty(one_sided=True, target=0.5)]}),
    "gp, layer norm": ("layer norm", {"terms": [GradientPenalty(3.0)], "loss": Wasserstein}),
    "gp, conv": ("conv", {"terms": [GradientPenalty()], "loss": Wasserstein}),
    "gp, patches": ("patches", {"terms": [GradientPenalty(0.1)]}),
    "gp, dropout": ("dropout", {"terms": [GradientPenalty()]}),
    "gp, packed": ("packed", {"terms": [GradientPenalty()]}),
    "gp, spectral": ("spectral", {"terms": [GradientPenalty()], "loss": Hinge}),
    "gp, began": ("autoencoder", {"terms": [GradientPenalty()], "loss": began}),
    "dragan": ("mlp", {"terms": [DRAGAN()]}),
    "dragan, layer norm": ("layer norm", {"terms": [DRAGAN()], "loss": Minimax}),
    "r1": ("mlp", {"terms": [R1()]}),
    "r2": ("mlp", {"terms": [R2()]}),
    "r1 and r2, rpgan": ("conv", {"terms": [R1(0.5), R2(0.5)], "loss": RelativisticPairing}),
    "r1, layer norm": ("layer norm", {"terms": [R1()], "loss": RelativisticAverage}),
    "r1, batch norm": ("batch norm", {"terms": [R1(allow_mixing=True)]}),
    "r1, noisy": ("noisy", {"terms": [R1()]}),
    "l2": ("batch norm", {"terms": [L2(0.1)]}),
    "l2, spectral": ("spectral", {"terms": [L2(0.1)]}),
    "spectral": ("spectral", {}),
    "packed": ("packed", {}),
    "noisy": ("noisy", {}),
    "feature matching": ("mlp", {"terms": lambda d: [FeatureMatching(d[:2])]}),
    "feature matching, batch norm": ("batch norm", {"terms": lambda d: [FeatureMatching(d[:3], 2.0)]}),
    "unrolled 0": ("mlp", {"unrolled": Unrolled(0)}),
    "unrolled 1": ("mlp", {"unrolled": Unrolled(1, **SGD_AHEAD)}),
    "unrolled 2": ("mlp", {"unrolled": Unrolled(2, **SGD_AHEAD), "loss": Minimax}),
    "unrolled 2, adam": ("mlp", {"unrolled": Unrolled(2, **ADAM_AHEAD)}),
    "unrolled 2, r1 and r2": ("mlp", {"unrolled": Unrolled(2, **SGD_AHEAD), "terms": [R1(0.5), R2(0.5)]}),
    "unrolled 1, gp": ("layer norm", {"unrolled": Unrolled(1, **SGD_AHEAD), "terms": [GradientPenalty()]}),
    "unrolled 2, batch norm": ("batch norm", {"unrolled": Unrolled(2, **SGD_AHEAD), "loss": Wasserstein}),
    "unrolled 1, dropout": ("dropout", {"unrolled": Unrolled(1, **SGD_AHEAD)}),
    "unrolled 1, rpgan": ("mlp", {"unrolled": Unrolled(1, **SGD_AHEAD), "loss": RelativisticPairing}),
}  # fmt: skip


def made(case, **rules):
    players, chosen = CASES[case]
    chosen = {**chosen, **rules}
    if "loss" in chosen:
        chosen["loss"] = chosen["loss"]()
    return small_game(players, **chosen)


def agree(used, expected):
    """Equal, measured by the largest entry of all."""
    size = max(np.abs(slope).max() for slope in expected.values())
    assert size > 1e-3
    for name, slope in expected.items():
        np.testing.assert_allclose(used[name], slope, rtol=0, atol=2e-9 * size, err_msg=name)


def biggest_difference(a, b):
    return max(np.abs(a[name] - b[name]).max() for name in a)


@pytest.mark.parametrize("case", [case for case in CASES if "unrolled" not in case])
def test_d_moves_along_the_gradient_of_its_loss(case):
    game, z = made(case), noise()
    real = images(game)
    used = used_by(discriminator_step, game.d, game, real, z)
    agree(used, by_differences(loss_of_d, game.d, game, real, z))
    if "terms" in CASES[case][1] and "feature" not in case:  # the term is not lost on the way
        assert (
            biggest_difference(used, used_by(discriminator_step, game.d, made(case, terms=()), real, z))
            > 0.01
        )


@pytest.mark.parametrize("case", CASES)
def test_g_moves_along_the_gradient_of_its_loss(case):
    game, z = made(case), noise()
    real = images(game)
    used = used_by(generator_step, game.g, game, real, z)
    agree(used, by_differences(loss_of_g, game.g, game, real, z))
    if "feature" in case:
        assert biggest_difference(used, used_by(generator_step, game.g, made(case, terms=()), real, z)) > 1e-3
    if game.unrolled and game.unrolled.steps:
        assert (
            biggest_difference(used, used_by(generator_step, game.g, made(case, unrolled=None), real, z))
            > 1e-3
        )


RANDOM = ("dropout", "gp")  # here the two players would draw from one generator, one after the other


@pytest.mark.parametrize("case", [c for c in CASES if "unrolled" in c and not any(r in c for r in RANDOM)])
def test_both_at_once_where_g_looks_ahead(case):
    game, z = made(case), noise()
    real = images(game)
    apart = {
        "g": used_by(generator_step, game.g, game, real, z),
        "d": used_by(discriminator_step, game.d, game, real, z),
    }

    def at_once(game, real, fake, report, rng):
        simultaneous_step(game, real, z, rng)

    for who, moved in apart.items():
        game = made(case)
        agree(used_by(at_once, getattr(game, who), game, real, z), moved)


@pytest.mark.parametrize("players", ["mlp", "batch norm", "dropout", "autoencoder", "packed"])
def test_both_at_once_with_consensus(players):
    """L + γ/2 (‖∂L_D/∂θ_D‖² + ‖∂L_G/∂θ_G‖²) for both: gradients of gradients, through the whole game."""
    game = small_game(players, began() if players == "autoencoder" else None, [Consensus(0.3)])
    real, z = images(game), noise()

    def losses(game, real, z):
        fake = game.g(z)
        loss_d, *_ = discriminator_loss(game, real, fake, terms_rng())
        loss_g, _ = generator_loss(game, real, fake, terms_rng())
        slopes = [*grad(loss_d, game.d.parameters()), *grad(loss_g, game.g.parameters())]
        more = 0.15 * sum(float((s * s).sum()) for s in slopes if s is not None)
        return float(loss_d) + more, float(loss_g) + more

    def step(*_):
        recall(game, memory(game))  # dropout from its beginning
        simultaneous_step(game, real, z, terms_rng())

    for i, network in enumerate((game.d, game.g)):
        used = used_by(step, network, game, real, z)
        agree(used, by_differences(lambda *a, i=i: losses(*a)[i], network, game, real, z))


def test_the_whole_game_by_hand():
    """Derived on paper, written in NumPy, without a tape: the same weights after five steps of each."""
    game = small_game(optimizer=lambda params: SGD(params, 0.3))
    reals, noises = [images(game, i) for i in range(5)], [noise(i) for i in range(5)]
    by_hand, start = ByHand(game), game.d.state_dict()
    for real, z in zip(reals, noises, strict=True):
        alternating_step(game, [real], [z])
    by_hand.steps(reals, noises, 0.3)
    assert by_hand.distance(game) < 1e-14
    assert biggest_difference(start, game.d.state_dict()) > 0.1


@pytest.mark.parametrize("players", ["mlp", "batch norm", "packed"])
def test_the_losses_are_those_of_logits_and_terms(players):
    """What was compared above is the derivative; here is the value, put together without Game."""
    game = small_game(players, RelativisticAverage(), [L2(0.1), R1(allow_mixing=True)])
    real, fake = images(game), images(game, 3)
    value, real_logits, fake_logits = discriminator_loss(game, real, fake, None)
    r, f = game.d(real), game.d(fake)
    close(real_logits, r)
    close(fake_logits, f)
    terms = [term.discriminator(game, real, fake, None) for term in game.terms]
    assert all(float(term) > 0.01 for term in terms)
    close(value, game.loss.discriminator(r, f) + terms[0] + terms[1])
    value, fake_logits = generator_loss(game, real, fake, None)
    close(value, game.loss.generator(f, r))
    close(fake_logits, f)


# ------------------------------------------------------------------------------------- who moves


def gradients_left(game):
    return [p.grad for network in networks(game) for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("case", ["rpgan, batch norm", "gp", "r2", "began", "feature matching", "unrolled 2"])
def test_each_step_moves_one_player(case):
    game, z = made(case), noise()
    real, fake = images(game), game.g(z)
    g, d = game.g.state_dict(), {name: p.numpy() for name, p in game.d.named_parameters()}
    discriminator_step(game, real, fake, Report(), terms_rng())
    assert same(game.g.state_dict(), g)  # running statistics included
    moved = {name: p.numpy() for name, p in game.d.named_parameters()}
    assert biggest_difference(moved, d) > 1e-3
    assert not gradients_left(game)

    generator_step(game, real, fake, Report(), terms_rng())
    assert same({name: p.numpy() for name, p in game.d.named_parameters()}, moved)
    assert biggest_difference(game.g.state_dict(), g) > 1e-4
    assert not gradients_left(game)
    assert all(p.requires_grad for network in networks(game) for p in network.parameters())


def test_the_step_of_g_computes_no_gradient_for_d():
    game = small_game("conv")
    fake = game.g(noise())
    with opponent(game, images(game), fake, None):
        loss_g, _ = generator_loss(game, images(game), fake, None)
    nodes = set(history(loss_g.node))
    assert {p.node for p in game.g.parameters()} <= nodes
    assert not {p.node for p in game.d.parameters()} & nodes


def test_unrolled_steps_leave_nothing_behind():
    game = small_game("batch norm", unrolled=Unrolled(3))
    game.loss = began()  # remembers something too; the images of D's logits do not matter here
    game.loss.logits = lambda d, x: d(x).reshape(-1)
    before, tensors = memory(game), game.d.parameters()
    generator_step(game, images(game), game.g(noise()), Report(), None)
    after = memory(game)
    assert same(
        {k: v for k, v in before.items() if k[0] != "0"}, {k: v for k, v in after.items() if k[0] != "0"}
    )
    assert all(a is b for a, b in zip(tensors, game.d.parameters(), strict=True))


def test_frozen_parts_of_d_stay_frozen():
    game = small_game(optimizer=lambda params: SGD(params, 0.5))
    game.d[0].requires_grad_(False)
    game.d_optimizer = SGD(game.d[2].parameters(), 0.5)
    before = game.d.state_dict()
    alternating_step(game, [images(game)], [noise()])
    after = game.d.state_dict()
    assert [name for name in after if not np.array_equal(after[name], before[name])] == ["2.weight", "2.bias"]
    assert [p.requires_grad for p in game.d.parameters()] == [False, False, True, True]


def test_an_alternating_step_is_its_half_steps():
    rules = {"optimizer": lambda params: Adam(params, 0.1), "loss": RelativisticPairing}
    game, other = (made("gp, dropout", **rules) for _ in range(2))
    reals, noises = [images(game, i) for i in range(3)], [noise(i) for i in range(3)]
    recall(game, memory(game))
    report = alternating_step(game, reals, noises, terms_rng())
    assert [optimizer.steps_done for optimizer in (game.d_optimizer, game.g_optimizer)] == [3, 1]

    recall(other, memory(other))
    expected, rng = Report(), terms_rng()
    for real, z in zip(reals, noises, strict=True):
        fake = other.g(z)
        discriminator_step(other, real, fake, expected, rng)
    generator_step(other, reals[-1], fake, expected, rng)
    assert same(memory(game), memory(other))
    assert report == expected


def test_what_a_report_says():
    game = small_game(optimizer=lambda params: SGD(params, 0.1))
    real, z, d = images(game), noise(), copy.deepcopy(game.d)
    r, f = d(real), d(game.g(z))
    report = alternating_step(game, [real], [z])
    fake = small_game().g(z)
    close(report.loss_d, game.loss.discriminator(r, f))
    close(report.loss_g, game.loss.generator(game.d(fake)))
    close(report.d_real, mg.sigmoid(r).mean())
    close(report.d_fake_before, mg.sigmoid(f).mean())
    close(report.d_fake_after, mg.sigmoid(game.d(fake)).mean())
    assert report.d_fake_after < report.d_fake_before  # D has learnt meanwhile


@pytest.mark.parametrize(
    "case", ["gp", "rpgan, batch norm", "unrolled 2, r1 and r2", "gp, dropout", "l2, spectral"]
)
def test_steps_on_every_backend(case, backend):
    results = []
    for name in ("numpy", backend):
        game = made(case)
        recall(game, memory(game))
        for network in networks(game):
            network.to(name)
        game = replace(
            game, g_optimizer=Adam(game.g.parameters(), 0.01), d_optimizer=Adam(game.d.parameters(), 0.01)
        )
        for i in range(2):
            alternating_step(game, [images(made(case), i).to(name)], [noise(i).to(name)], terms_rng())
        results.append(memory(game))
    for key, value in results[0].items():
        close(results[1][key], value, rtol=1e-9)


@pytest.mark.parametrize(
    "case", ["gp", "dragan", "r1 and r2, rpgan", "gp, packed", "unrolled 2, adam", "began"]
)
def test_single_precision_stays_single(case):
    """A stray number in double precision would make everything after it slow, and say nothing."""
    game = made(case)
    for network in networks(game):
        network.to(dtype="float32")
    real, fake = images(game).astype("float32"), game.g(noise().astype("float32"))
    assert fake.dtype == "float32"
    with opponent(game, real, fake, terms_rng()):
        losses = [generator_loss(game, real, fake, terms_rng())[0]]
    losses.append(discriminator_loss(game, real, fake.detach(), terms_rng())[0])
    for loss in losses:
        assert {node.dtype.str for node in history(loss.node)} == {"<f4"}


# ---------------------------------------------------------------------- in which order, on what


def bilinear(lr_d, lr_g, **rules):
    """D(x) = w x, G(z) = θ z, as WGAN. For real images 0 and z = 1 the game is L_D = w θ, L_G = -w θ."""
    g, d = (nn.Linear(1, 1, bias=False, rng=0, dtype="float64") for _ in range(2))
    g.weight.data, d.weight.data = [[1.0]], [[0.5]]
    return Game(g, d, Wasserstein(), SGD(g.parameters(), lr_g), SGD(d.parameters(), lr_d), **rules)


def place(game):
    return np.array([float(game.d.weight), float(game.g.weight)])  # w, θ


ZERO, ONE = Tensor([[0.0]]), Tensor([[1.0]])


@pytest.mark.parametrize(("lr_d", "lr_g"), [(0.1, 0.1), (0.4, 0.1)])
def test_simultaneous_and_alternating_on_a_bilinear_game(lr_d, lr_g):
    """w ← w - η_D θ, θ ← θ + η_G w: a rotation, which spirals outward if both move at once.

    If G sees where D has gone to, the product of the two moves has determinant 1, and they stay on a curve.
    """
    d_first = np.array([[1, -lr_d], [0, 1]])
    g_then = np.array([[1, 0], [lr_g, 1]])
    both = np.array([[1, -lr_d], [lr_g, 1]])
    start = np.array([0.5, 1.0])
    game = bilinear(lr_d, lr_g)
    for _ in range(200):
        simultaneous_step(game, ZERO, ONE)
    close(place(game), np.linalg.matrix_power(both, 200) @ start, rtol=1e-11)
    assert np.linalg.norm(place(game)) > 2

    game, farthest = bilinear(lr_d, lr_g), 0.0
    for _ in range(200):
        alternating_step(game, [ZERO], [ONE])
        farthest = max(farthest, np.linalg.norm(place(game)))
    close(place(game), np.linalg.matrix_power(g_then @ d_first, 200) @ start, rtol=1e-11)
    assert farthest < 2.6


def test_several_steps_of_d_for_one_of_g():
    """Each with images and noise of its own: L_D = w (θ z - x), L_G = -w θ z."""
    x, z, (w, theta) = [0.3, -0.2, 0.5], [1.0, -2.0, 3.0], (0.5, 1.0)
    game = bilinear(0.1, 0.01)
    report = alternating_step(game, [Tensor([[v]]) for v in x], [Tensor([[v]]) for v in z])
    for i in range(3):
        loss_d = w * (theta * z[i] - x[i])
        w -= 0.1 * (theta * z[i] - x[i])
    close(report.loss_d, loss_d)  # of the last of D's steps
    close(report.loss_g, -w * theta * z[2])
    close(place(game), [w, theta + 0.01 * w * z[2]])  # G goes on with the fakes of D's last step


def test_new_noise_for_g():
    game = bilinear(0.1, 0.01, reuse_fakes=False)
    alternating_step(game, [ZERO, ZERO], [Tensor([[v]]) for v in (1.0, 2.0, 7.0)])
    w = 0.5 - 0.1 * 3.0
    close(place(game), [w, 1.0 + 0.01 * w * 7.0])


@pytest.mark.parametrize("players", ["mlp", "layer norm", "conv", "spectral"])
def test_one_batch_or_two_are_the_same(players):
    """To rounding, if D looks at each image by itself: so one batch it is, which is faster."""
    game, z = small_game(players), noise()
    real = images(game)
    assert game.in_one_batch is True
    together = used_by(discriminator_step, game.d, game, real, z)
    apart = used_by(discriminator_step, game.d, replace(game, separate=True), real, z)
    assert biggest_difference(together, apart) < 1e-14
    fewer = images(game, count=3)  # as many real images as fakes, or not
    close(*(discriminator_loss(replace(game, separate=s), fewer, game.g(z), None)[0] for s in (True, False)))


class Centred(nn.Module):
    """A layer of somebody's own, which mixes the images of a batch."""

    def forward(self, x):
        return x - x.mean(axis=0)


class CentredLinear(nn.Linear):
    """A layer of ours, changed: it has to say so."""

    mixes_images = True

    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(axis=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(3),
        nn.MinibatchStdDev(),
        nn.MinibatchDiscrimination(3, 2, 2, rng=0),
        nn.Residual(nn.BatchNorm1d(3)),
        nn.Lambda(lambda x: x - x.mean(axis=0)),
        Centred(),
        CentredLinear(3, 3, rng=0),
        Packed(nn.Linear(6, 3, rng=0), 2),
        InstanceNoise(nn.ReLU(), 0.1, rng=0),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_batches_are_kept_apart_where_images_might_mix(layer):
    d = mlp(outputs=1, after=(nn.Tanh(), layer))
    game = Game(mlp(), d, NonSaturating(), SGD(mlp().parameters(), 1.0), SGD(d.parameters(), 1.0))
    assert game.in_one_batch is False


def test_batch_norm_sees_real_images_and_fakes_apart():
    """In one batch each would be normalised by the statistics of the mixture."""
    game, z = small_game("batch norm"), noise()
    real = images(game)
    _, real_logits, fake_logits = discriminator_loss(game, real, game.g(z), None)
    close(real_logits, game.d(real))
    mixed = discriminator_loss(replace(game, separate=False), real, game.g(z), None)
    assert np.abs((mixed[2] - fake_logits).numpy()).max() > 0.05


# --------------------------------------------------------------------------------- wrong use


def test_a_game_says_what_does_not_fit():
    g, d = mlp(), mlp(2, 1)
    of_g, of_d = SGD(g.parameters(), 1.0), SGD(d.parameters(), 1.0)
    for last in (nn.Sigmoid(), nn.Softmax()):
        with pytest.raises(ValueError, match=rf"D ends with {type(last).__name__}.*logits.*leave it out"):
            Game(g, nn.Sequential(d, last), Hinge(), of_g, of_d)
    Game(g, nn.Sequential(mlp(), nn.Sigmoid()), BEGAN(), of_g, of_d)  # what it makes are images


def test_steps_say_what_does_not_fit():
    game = bilinear(0.1, 0.1)
    for reals, noises in ((1, 0), (1, 2), (2, 1), (0, 0)):
        with pytest.raises(ValueError, match=rf"{reals} real batches and {noises} of noise; each step of D"):
            alternating_step(game, [ZERO] * reals, [ONE] * noises)
    with pytest.raises(ValueError, match=r"1 real batches and 1 of noise.*G's step one more"):
        alternating_step(replace(game, reuse_fakes=False), [ZERO], [ONE])
    with pytest.raises(ValueError, match=r"Consensus is added to both.* needs simultaneous steps"):
        alternating_step(replace(game, terms=[Consensus()]), [ZERO], [ONE])
    with pytest.raises(ValueError, match=r"Consensus is added to both .*no unrolled D"):
        simultaneous_step(replace(game, unrolled=Unrolled(1), terms=[Consensus()]), ZERO, ONE)
    assert place(game).tolist() == [0.5, 1.0]


def test_a_layer_that_a_player_has_frozen_stays_where_it_is():
    """Fine-tuning: the optimiser has all parameters, and some of them do not take part."""
    game = small_game(optimizer=lambda params: SGD(params, 0.5))
    for network in (game.g, game.d):
        network[0].requires_grad_(False)
    before = memory(game)
    for step in (alternating_step, simultaneous_step):
        batches = [images(game)], [noise()]
        step(game, *(batches if step is alternating_step else (batches[0][0], batches[1][0])))
    after = memory(game)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {f"{i}.2.{name}" for i in (0, 1) for name in ("weight", "bias")}


def test_clipping_comes_after_each_step_of_d():
    game = small_game(loss=Wasserstein(), terms=[WeightClipping(0.01)])
    alternating_step(game, [images(game)], [noise()])
    assert max(np.abs(p.numpy()).max() for p in game.d.parameters()) == 0.01
    assert max(np.abs(p.numpy()).max() for p in game.g.parameters()) > 0.1


# -------------------------------------------------------------------------- infinity and NaN


class Cusp(Term):
    """√0, which is finite, and whose slope is not."""

    def __init__(self, player):
        setattr(
            self, player, lambda game, real, fake, rng: mg.sqrt(mg.square(next_to(game, player, fake)).sum())
        )


def next_to(game, player, fake):
    x = game.d.parameters()[0] if player == "discriminator" else fake
    return x - x.detach()


class Infinite(Term):
    def __init__(self, player):
        setattr(self, player, lambda game, real, fake, rng: Tensor(np.inf))


@pytest.mark.parametrize("term", [Cusp, Infinite])
@pytest.mark.parametrize("simultaneous", [False, True])
@pytest.mark.parametrize(("player", "name"), [("discriminator", "L_D"), ("generator", "L_G")])
def test_not_finite_and_nobody_moves(term, simultaneous, player, name):
    game = small_game(terms=[term(player)], optimizer=lambda params: Adam(params, 0.1))
    real, z, before = images(game), noise(), memory(game)
    words = rf"{name} is inf" if term is Infinite else rf"{name} is [-\d.e]+, but its gradient is not finite"
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=words):
        if simultaneous:
            simultaneous_step(game, real, z)
        elif player == "discriminator":
            discriminator_step(game, real, game.g(z), Report())
        else:
            generator_step(game, real, game.g(z), Report())
    assert same(memory(game), before)
    for optimizer in (game.g_optimizer, game.d_optimizer):
        assert optimizer.steps_done == 0
        assert not optimizer.state_dict()["m.0"].any()
    assert all(p.requires_grad for p in game.d.parameters())
    assert not gradients_left(game)


def test_a_nan_among_the_images():
    game = small_game()
    real, before = images(game).numpy().copy(), memory(game)
    real[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match="L_D is nan"):
        alternating_step(game, [Tensor(real)], [noise()])
    assert same(memory(game), before)


def test_all_finite(backend):
    def array(value, dtype="float64"):
        return Tensor(value, backend=backend, dtype=dtype).data

    huge = [array([1e300, -1e300]), array([[1e38, 3e38]], "float32"), array(0.0), array(np.zeros((0, 3)))]
    assert all_finite(huge)  # though the sum of their squares is not
    assert all_finite([])
    for bad in (np.inf, -np.inf, np.nan):
        for dtype in ("float32", "float64"):
            assert not all_finite([*huge, array([[1.0, 2.0], [bad, 0.0]], dtype).T])
            assert not all_finite([array(bad, dtype), *huge])


def named(value, name, backend):
    return Tensor(value, requires_grad=True, backend=backend, name=name)


def test_checked_names_the_op_on_the_way_forward(backend):
    x, w = named([[1.0, -1.0], [2.0, 3.0]], "x", backend), named([np.inf], "w", backend)
    made_nan = r"op 'log' made nan, at \[0, 1\] of its result of shape \(2, 2\), from finite inputs"
    with checked(), pytest.raises(NonFiniteError, match=made_nan):
        mg.tanh(mg.log(mg.exp(x) * x)).sum()
    with checked(), pytest.raises(NonFiniteError, match=r"op 'exp' made inf.*not finite already: 'w'"):
        mg.exp(w)
    with np.errstate(all="ignore"):
        assert not np.isfinite(mg.log(x).numpy()).all()  # outside nobody looks


def test_checked_takes_plain_numbers(backend):
    x, w = named([1e308], "x", backend), named([np.inf], "w", backend)
    with checked(), pytest.raises(NonFiniteError, match=r"op 'mul' made inf.*from finite inputs"):
        x * 10.0
    with checked(), pytest.raises(NonFiniteError, match=r"op 'add' made inf.*not finite already: 'w'"):
        w + 1


def test_checked_names_the_op_on_the_way_back(backend):
    """The op that the reader wrote, √, and not the division that its derivative is made of."""
    zero = named([4.0, 0.0], "zero", backend)
    y = (mg.sqrt(zero) * 3.0).sum()
    for walk in (lambda: grad(y, zero), lambda: grad(y, zero, create_graph=True), y.backward):
        with checked(), pytest.raises(NonFiniteError, match=r"gradient of op 'sqrt' became inf, at \[1\]"):
            walk()
    assert zero.grad is None
    with np.errstate(all="ignore"):
        assert float(grad(y, zero)[1]) == np.inf


def test_checked_changes_nothing_else():
    game, other = (made("gp") for _ in range(2))
    real, z = images(game), noise()
    with checked():
        alternating_step(game, [real], [z], terms_rng())
    alternating_step(other, [real], [z], terms_rng())
    assert same(memory(game), memory(other))


# ------------------------------------------------------------------- the moving average of G


def test_the_average_in_closed_form():
    """a_T = δ_0 ... δ_T a_0 + Σ_t (1 - δ_t) δ_t+1 ... δ_T θ_t        δ_t = min(δ, (1 + t) / (10 + t))"""
    g, steps, decay = drawing().to(dtype="float64"), 12, 0.5  # which is reached after 8
    average, states = EMA(g, decay), [g.state_dict()]
    for t in range(steps):
        for j, p in enumerate(g.parameters()):
            p.data = p.data + 0.1 * values(100 * t + j, *p.shape)
        g(noise(t))
        average.update(g)
        states.append(g.state_dict())
    deltas = [0.0, *[min(decay, (1 + t) / (10 + t)) for t in range(steps)]]
    assert (deltas[1], deltas[-1]) == (0.1, 0.5)
    found = average.module(g).state_dict()
    assert found.pop("2.num_batches_tracked") == steps
    assert {"2.running_mean", "2.running_var"} <= found.keys()
    for name, value in found.items():
        shares = [(1 - deltas[t]) * np.prod(deltas[t + 1 :]) for t in range(steps + 1)]
        close(value, sum(share * state[name] for share, state in zip(shares, states, strict=True)))
        assert np.abs(value - states[-1][name]).max() > 1e-3


def test_the_average_is_a_copy_for_drawing():
    g = drawing().to(dtype="float64")
    average, before = EMA(g, 0.9), g.state_dict()
    twin = average.module(g)
    assert g.training and not twin.training
    assert same(twin.state_dict(), before)
    for p in g.parameters():
        p.data = p.data + 1.0
    average.update(g)
    assert same(twin.state_dict(), before)  # a copy of its time
    later = average.module(g)
    for name, p in later.named_parameters():
        close(p, 0.1 * before[name] + 0.9 * (before[name] + 1.0))  # at first little is kept of the past
    later(noise())
    assert same(average.module(g).state_dict(), later.state_dict())  # statistics of images move nothing
    with pytest.raises(ValueError, match="decay=1"):
        EMA(g, 1.0)


def test_the_average_can_be_saved():
    g = drawing()
    average, other = EMA(g, 0.5), EMA(drawing(), 0.5)
    average.update(g)
    state = average.state_dict()
    other.load_state_dict(state)
    assert other.updates == 1 and same(other.state_dict(), state)
    with pytest.raises(ValueError, match=r"averages do not fit.*weight"):
        EMA(mlp(), 0.5).load_state_dict(state)
    with pytest.raises(ValueError, match=r"0.weight has \(8, 2\) here, \(3, 2\) in the state"):
        other.load_state_dict({**state, "0.weight": np.zeros((3, 2))})


def test_samples_are_drawn_by_the_average_and_training_does_not_look_at_it():
    with_average, without = small_trainer(ema=0.9), small_trainer(ema=0)
    for trainer in (with_average, without):
        trainer.run(steps=6)
    assert same(memory(with_average.play.game), memory(without.play.game))
    g, z = without.play.game.g, Tensor(values(0, 5, 3), dtype="float32")
    close(without.play.sampler()(z), copy.deepcopy(g).eval()(z))
    assert np.abs((with_average.play.sampler()(z) - without.play.sampler()(z)).numpy()).max() > 1e-3
    assert same(with_average.play.sampler().state_dict(), with_average.play.ema.module(g).state_dict())


def test_each_player_has_its_own_optimiser():
    game = small_game()
    both = SGD([*game.g.parameters(), *game.d.parameters()], 1.0)
    with pytest.raises(ValueError, match="G's optimiser has parameters of D's"):
        replace(game, g_optimizer=both)
    with pytest.raises(ValueError, match="D's optimiser has parameters of G's"):
        replace(game, d_optimizer=game.g_optimizer)


def test_a_sigmoid_at_the_end_of_d_is_found_inside_a_wrapper():
    game = small_game()
    d = Packed(nn.Sequential(game.d, nn.Sigmoid()), 1)
    with pytest.raises(ValueError, match=r"D ends with Sigmoid\(\)"):
        replace(game, d=d)
