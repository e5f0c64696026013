"""Mistakes that are known from popular GAN code, one test each, named after what goes wrong.

They were found in public repositories (gan_numpy and its forks, PyTorch-GAN, torchgan, mimicry, Keras-GAN,
PacGAN's, the collections of hwalsuklee and wiseodd) and in their issues. Each test has the right behaviour
and, where it is short, the mistake: then the two must differ, or the test would notice nothing.
"""

import math

import numpy as np
import pytest
from gan_games import (
    ByHand,
    by_differences,
    close,
    images,
    loss_of_d,
    loss_of_g,
    memory,
    mlp,
    noise,
    same,
    small_game,
    used_by,
    values,
)
from small_runs import PIXELS, small_trainer
from small_runs import images as small_images
from small_runs import small_game as trainable

import minigan as mg
from minigan import Tensor, grad, nn
from minigan.data import Batches, ring, scaled
from minigan.gan import (
    LOSSES,
    Game,
    Minimax,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Report,
    Wasserstein,
    alternating_step,
    discriminator_loss,
    discriminator_step,
    generator_step,
    loss,
)
from minigan.gan.penalties import (
    GradientPenalty,
    dragan_penalty,
    gradient_penalty,
    input_gradients,
    zero_centred_penalty,
)
from minigan.metrics.classifier import cross_entropy
from minigan.optim import SGD, Adam
from minigan.training import EMA

LOG2 = math.log(2)


def leaf(value):
    return Tensor(value, requires_grad=True, dtype="float64")


def distance_by_hand(mistake=None):
    """How far a game derived by hand is from minigan's after three steps of each player."""
    game = small_game(optimizer=lambda params: SGD(params, 0.3))
    reals, noises = [images(game, i) for i in range(3)], [noise(i) for i in range(3)]
    by_hand = ByHand(game, mistake)
    by_hand.steps(reals, noises, 0.3)
    for real, z in zip(reals, noises, strict=True):
        alternating_step(game, [real], [z])
    return by_hand.distance(game)


def noticed(mistake):
    return distance_by_hand() < 1e-14 and distance_by_hand(mistake) > 1e-3


# ------------------------------------------------------------------------------ who gets which gradient


def test_one_cache_in_d_is_overwritten_by_the_fakes():
    """D sees real images, then fakes. The gradient for the real ones needs what D remembers of *them*."""
    game, z = small_game(), noise()
    real = images(game)
    used, true = (f(game.d, game, real, z) for f in (by_step, by_loss))
    assert apart(used, true) < 1e-8
    wrong = ByHand(game, "D keeps one cache, and the fakes overwrite it")
    wrong.d_step(real.numpy(), z.numpy(), 1.0)
    start = game.d.state_dict()
    assert apart({name: start[name] - wrong.d[name] for name in start}, true) > 0.1
    assert noticed("D keeps one cache, and the fakes overwrite it")


def by_step(d, game, real, z):
    return used_by(discriminator_step, d, game, real, z)


def by_loss(d, game, real, z):
    return by_differences(loss_of_d, d, game, real, z)


def apart(a, b):
    """The largest relative error of a whole parameter's gradient."""
    return max(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name]) for name in b)


@pytest.mark.parametrize(
    "mistake",
    ["no detach, and G moves in D's step", "no detach, and D's step leaves gradients in G"],
)
def test_no_detach_would_move_g_in_ds_step(mistake):
    game = small_game("batch norm")
    everything = SGD([*game.g.parameters(), *game.d.parameters()], 1.0)  # which it could move
    fake, before = game.g(noise()), game.g.state_dict()
    assert fake.requires_grad
    for optimizer in (game.d_optimizer, everything):
        game.d_optimizer = optimizer  # behind the back of the Game, which would refuse `everything`
        discriminator_step(game, images(game), fake, Report())
        assert same(game.g.state_dict(), before)
        assert all(p.grad is None for p in game.g.parameters())
    assert noticed(mistake)


def test_d_would_move_in_gs_step():
    """It would move where G wants it: D would learn to take fakes for real."""
    game = small_game("conv")
    before = game.d.state_dict()
    generator_step(game, images(game), game.g(noise()), Report())
    assert same(game.d.state_dict(), before)
    assert noticed("D moves in G's step")


def test_gradients_that_gs_step_leaves_in_d_would_go_into_ds_next_step():
    game = small_game()
    generator_step(game, images(game), game.g(noise()), Report())
    assert all(p.grad is None for p in game.d.parameters())
    for p in game.d.parameters():  # and if somebody else has left something there, it does not count either
        p.grad = Tensor(np.ones(p.shape))
    other = small_game()
    for each in (game, other):
        discriminator_step(each, images(other), other.g(noise()), Report())
    assert same(game.d.state_dict(), other.d.state_dict())
    assert noticed("G's step leaves gradients in D")


def test_a_d_that_answers_in_plain_numbers_teaches_g_nothing():
    """As `D.predict(fakes)` does. The gradient has to come back through D into the images."""
    game, z = small_game(), noise()
    used = used_by(generator_step, game.g, game, images(game), z)
    assert apart(used, by_differences(loss_of_g, game.g, game, images(game), z)) < 1e-8
    assert noticed("D is a number to G")
    answers = Tensor(game.d(game.g(z)).numpy())
    with pytest.raises(ValueError, match="depends on no Tensor"):  # and not silently zero
        grad(NonSaturating().generator(answers), game.g.parameters())


def test_losses_put_into_a_new_tensor_have_no_gradient():
    """torch.Tensor([a, b]).mean() is a constant: a mutual information term made so trains nothing."""
    w = leaf([1.0, 2.0])
    a, b = (w * w).sum(), w.sum()
    for attempt in (lambda: Tensor([a, b]), lambda: Tensor(a)):
        with pytest.raises(TypeError, match="lose"):
            attempt()
    close(grad(mg.stack([a, b]).mean(), w), [1.5, 2.5])


@pytest.mark.parametrize("name", LOSSES)
def test_the_sum_is_followed_where_the_mean_is_reported(name):
    """Then the learning rate is as many times higher as there are images in the batch."""
    players = "autoencoder" if name == "began" else "mlp"
    game, real, z = small_game(players, loss(name)), values(1, 4, 2), values(2, 4, 2)
    for step, network in ((discriminator_step, game.d), (generator_step, game.g)):
        once = used_by(step, network, game, Tensor(real), Tensor(z))
        twice = used_by(
            step, network, game, Tensor(np.concatenate([real] * 2)), Tensor(np.concatenate([z] * 2))
        )
        assert max(np.abs(once[key] - twice[key]).max() for key in once) < 1e-14
    assert noticed("sum for mean")


# --------------------------------------------------------------------------------- frozen, for how long


def test_d_frozen_for_g_is_never_thawed():
    """Where freezing counts only when something is compiled, its order decides who learns at all."""
    game = small_game(optimizer=lambda params: SGD(params, 0.1))
    for i in range(3):
        before = game.d.state_dict()
        alternating_step(game, [images(game, i)], [noise(i)])
        assert not any(np.array_equal(value, before[name]) for name, value in game.d.state_dict().items())


def test_one_adam_for_both_players():
    """Its memory of D's gradients would be mixed with what D's weights get in G's step."""
    game = small_game(optimizer=lambda params: Adam(params, 0.1))
    remembered = game.d_optimizer.state_dict()
    generator_step(game, images(game), game.g(noise()), Report())
    assert all(np.array_equal(game.d_optimizer.state_dict()[name], remembered[name]) for name in remembered)

    both = Adam([*game.g.parameters(), *game.d.parameters()], 0.1)
    with pytest.raises(ValueError, match="each player needs an optimiser of its own"):
        Game(game.g, game.d, game.loss, both, both)


def test_batch_norm_of_a_frozen_d_in_inference_mode():
    """Frozen is not the same as eval(): in G's step D normalises by the batch, as in its own step."""
    game = small_game("batch norm")
    fake, report = game.g(noise()), Report()
    expected, inference = game.d(fake), game.d.eval()(fake)
    game.d.train()
    generator_step(game, images(game), fake, report)
    close(report.loss_g, game.loss.generator(expected))
    assert abs(report.loss_g - float(game.loss.generator(inference))) > 0.01


# ------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("relativistic", [RelativisticPairing(), RelativisticAverage()])
def test_relativistic_g_loss_overwritten_by_the_plain_one(relativistic):
    game, plain, z = small_game(loss=relativistic), small_game(), noise()
    wrong = used_by(generator_step, plain.g, plain, images(plain), z)
    for shift in (0.0, 1.0):  # it compares fakes with real images: others, another gradient
        used = used_by(generator_step, game.g, game, images(game) + shift, z)
        assert apart(used, wrong) > 0.1
        wrong = used


def test_softmax_before_cross_entropy():
    """Probabilities, taken for logits, are nearly equal: the loss cannot fall below 1.46."""
    logits, labels = leaf([[20.0, *[0.0] * 9]]), [0]
    assert float(cross_entropy(logits, labels)) < 1e-7
    assert float(cross_entropy(mg.softmax(logits, axis=1), labels)) > 1.46
    far = leaf([[-100.0, 100.0, *[0.0] * 8]])
    loss = cross_entropy(far, labels)
    assert (float(loss), float(grad(loss, far)[0, 0])) == (200.0, -1.0)  # no log of 0


def test_log_of_sigmoid_plus_epsilon_saturates():
    """-log(σ(l) + ε) is flat where G begins, the very thing that the non-saturating loss is for."""
    for logit in (-10.0, -25.0, -40.0, -200.0):
        f = leaf([[logit]] * 4)
        close(grad(NonSaturating().generator(f), f), np.full((4, 1), -0.25), rtol=1e-4)
        wrong = grad(-mg.log(mg.sigmoid(f) + 1e-8).mean(), f).numpy()
        assert logit == -10 or np.abs(wrong).max() < 1e-2 / 4


def test_minimax_that_is_really_non_saturating():
    """Where D is sure of the fakes (D = 10⁻⁶), minimax has a slope of 10⁻⁶, the other one of 1."""
    f = leaf([[math.log(1e-6)]])
    minimax, other = (float(grad(game.generator(f), f)[0, 0]) for game in (Minimax(), NonSaturating()))
    assert minimax == pytest.approx(-1e-6, rel=1e-5)
    assert other == pytest.approx(-1, rel=1e-5)
    assert type(loss("minimax")) is Minimax
    steps = [
        used_by(generator_step, g.g, g, images(g), noise())
        for g in map(sure_of_fakes, (Minimax, NonSaturating))
    ]
    norms = [math.sqrt(sum((slope**2).sum() for slope in step.values())) for step in steps]
    assert norms[0] < 1e-4 * norms[1]


def sure_of_fakes(loss):
    game = small_game(loss=loss())
    bias = game.d[2].bias
    bias.data = bias.numpy() - float(game.d(game.g(noise())).max()) - 14.0
    return game


def test_labels_smoothed_on_both_sides():
    """The best D is then 0.1 where there are only fakes, not 0: it stops driving them away."""
    with pytest.raises(ValueError, match="both sides"):
        NonSaturating(real_target=0.9, fake_target=0.1)
    for logit in (-2.0, -5.0, -30.0):  # one place, where there are no real images
        f = leaf([[logit]])
        smoothed = NonSaturating(real_target=0.9).discriminator(Tensor([[3.0]]), f)
        assert float(grad(smoothed, f)) > 0  # lower and lower
        wrong = (0.9 * mg.softplus(f) + 0.1 * mg.softplus(-f)).sum()
        assert (float(grad(wrong, f)) > 0) == (logit > math.log(0.1 / 0.9))


def test_smoothed_on_one_side_the_best_d_is_right():
    """On a line: with densities p and q, D* = 0.9 p / (p + q)."""
    p, q = np.array([1, 4, 3, 2, 0]) / 10, np.array([0, 1, 2, 3, 4]) / 10
    best = 0.9 * p / (p + q)
    v = leaf(np.log(np.clip(best, 1e-30, None) / (1 - best)))
    real, fake = (np.repeat(np.arange(5), (10 * density).astype(int)) for density in (p, q))
    slope = grad(NonSaturating(real_target=0.9).discriminator(v[real], v[fake]), v).numpy()
    assert np.abs(slope).max() < 1e-16


def test_sigmoid_twice():
    """D ends in a sigmoid, and the loss takes its output for logits: then it never falls below 1."""
    right = NonSaturating().discriminator(Tensor([[40.0]]), Tensor([[-40.0]]))
    twice = NonSaturating().discriminator(mg.sigmoid(Tensor([[40.0]])), mg.sigmoid(Tensor([[-40.0]])))
    assert float(right) < 1e-15 < 1 < float(twice)
    game = small_game()
    with pytest.raises(ValueError, match=r"D ends with Sigmoid.*logits"):
        Game(game.g, nn.Sequential(*game.d, nn.Sigmoid()), game.loss, game.g_optimizer, game.d_optimizer)


@pytest.mark.parametrize("name", ["minimax", "non-saturating", "hinge", "rpgan", "ragan", "jensen-shannon"])
def test_large_logits_become_nan(name):
    for a in (100.0, -100.0, 1e4, -1e4):
        r, f = leaf([[a], [-a]]), leaf([[-a], [-a]])
        for value in (loss(name).discriminator(r, f), loss(name).generator(f, r)):
            assert np.isfinite(float(value))
            assert np.isfinite(grad(value, f).numpy()).all()
    with np.errstate(all="ignore"):
        assert not np.isfinite(float(-mg.log(mg.sigmoid(Tensor(-1e4)))))


def test_g_of_a_wgan_goes_the_wrong_way():
    """-mean D(G(z)) is what G lowers: D's answer to the fakes has to rise."""
    game, z = small_game(loss=Wasserstein(), optimizer=lambda params: SGD(params, 0.01)), noise()
    before = float(game.d(game.g(z)).mean())
    generator_step(game, images(game), game.g(z), Report())
    assert float(game.d(game.g(z)).mean()) > before + 1e-4


def test_equilibrium_is_2_log_2():
    """A D that cannot tell: L_D = 1.386, not 0.693 as if its two halves were averaged."""
    game = small_game()
    for p in game.d.parameters():
        p.data = np.zeros(p.shape)
    value, *_ = discriminator_loss(game, images(game), game.g(noise()), None)
    close(value, 2 * LOG2)


# ---------------------------------------------------------------------------------------- penalties


def linear_critic(w):
    """D(x) = Σ w x for each image: its slope is w everywhere."""
    return lambda x: (x * Tensor(w)).sum(axis=tuple(range(1, x.ndim)))


def seen(penalty):
    """The images at which a penalty asks for D's slope."""
    places = []

    def critic(x):
        places.append(x.numpy())
        return x.reshape(len(x), -1).sum(axis=1)

    penalty(critic)
    return places[0]


REAL, FAKE = Tensor(values(3, 64, 2, 4, 4)), Tensor(values(4, 64, 2, 4, 4))


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", [1.0, 0.125, 5.0])
def test_norm_over_the_whole_batch(size):
    """(‖w‖ - 1)² for each of 64 images. The norm of all 64 slopes together would want ‖w‖ = 1/8."""
    w = values(5, 2, 4, 4)
    critic = linear_critic(w * size / np.linalg.norm(w))
    for found in (gradient_penalty(critic, REAL, FAKE, rng()), dragan_penalty(critic, REAL, rng())):
        close(found, 10 * (size - 1) ** 2, atol=1e-12)
    close(zero_centred_penalty(critic, REAL, 10.0), 5 * size**2)
    whole_batch = float(mg.norm(input_gradients(critic, REAL)))
    assert whole_batch == pytest.approx(8 * size)  # exactly 1 where the right penalty is 7.66


def test_norm_over_the_channels_only():
    """A slope of 1 at every pixel is no slope of 1 for the image, but of 4 for 4 × 4 pixels."""
    w = np.zeros((2, 4, 4))
    w[0] = 1.0
    for found in (
        gradient_penalty(linear_critic(w), REAL, FAKE, rng()),
        dragan_penalty(linear_critic(w), REAL, rng()),
    ):
        close(found, 10 * (4 - 1) ** 2)
    slopes = input_gradients(linear_critic(w), REAL).reshape(REAL.shape)
    assert float(mg.square(mg.norm(slopes, axis=1) - 1).mean()) == 0.0  # the mistake: all is well


def test_one_epsilon_for_the_batch_or_one_for_each_pixel():
    """x̂ = ε x + (1 - ε) G(z), with one ε for each image: 64 different ones."""
    at = seen(lambda critic: gradient_penalty(critic, REAL, FAKE, rng()))
    epsilon = (at - FAKE.numpy()) / (REAL.numpy() - FAKE.numpy())
    of_images = epsilon.reshape(64, -1)
    assert np.ptp(of_images, axis=1).max() < 1e-9
    assert len(set(of_images.mean(axis=1).round(9))) == 64
    assert 0 < of_images.min() < 0.1 < 0.9 < of_images.max() < 1


def test_dragan_disturbs_each_image_by_an_alpha_of_its_own():
    """x̂ = x + α c s u, as in the authors' code: α of each image, u of each pixel, s of the batch."""
    at = seen(lambda critic: dragan_penalty(critic, REAL, rng(), c=0.5))
    moved = ((at - REAL.numpy()) / (0.5 * REAL.numpy().std())).reshape(64, -1)
    assert 0 < moved.min() < moved.max() < 1
    largest = moved.max(axis=1)  # nearly α, since u comes near 1 in 32 draws
    assert largest.min() < 0.2 < 0.8 < largest.max()
    assert (np.ptp(moved, axis=1) > 0.5 * largest).all()
    wrong = rng().random(moved.shape) * rng().random(moved.shape)  # an α for each pixel
    assert wrong.max(axis=1).min() > 0.5


def test_penalty_on_the_output_of_a_sigmoid():
    """Its slope is at most a quarter of the logit's, and none where D is sure."""
    d = mlp(outputs=1).to(dtype="float64")
    for wrong in (nn.Sequential(*d, nn.Sigmoid()), nn.Sequential(d, nn.Softmax())):
        with pytest.raises(ValueError, match="raw logits"):
            gradient_penalty(wrong, images(small_game()), images(small_game(), 2), rng())
    x = images(small_game())
    logit, probability = (
        mg.norm(input_gradients(f, x), axis=1).numpy() for f in (d, lambda x: mg.sigmoid(d(x)))
    )
    assert (probability <= 0.25 * logit).all()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.MinibatchStdDev()], ids=repr)
def test_batch_norm_in_a_critic_with_a_gradient_penalty(layer):
    game = small_game("conv", Wasserstein(), [GradientPenalty()])
    d = nn.Sequential(game.d[0], layer, nn.Flatten())
    with pytest.raises(ValueError, match=r"mixes the images of a batch.*LayerNorm"):
        Game(game.g, d, game.loss, game.g_optimizer, game.d_optimizer, game.terms)


def test_the_penalty_needs_the_second_derivative():
    """The slope at x̂ is a function of D's weights. For D = w x, dL/dw = 20 (‖w‖ - 1) w / ‖w‖."""
    w = leaf([[3.0], [4.0]])
    penalty = gradient_penalty(lambda x: x @ w, Tensor(values(1, 8, 2)), Tensor(values(2, 8, 2)), rng())
    close(grad(penalty, w), 20 * (5 - 1) * w.numpy() / 5)


def test_spectral_norm_of_a_convolution():
    """The weight (out, in, KH, KW) is a matrix (out, in · KH · KW), u is kept, and one round improves it."""
    layer = nn.spectral_norm(nn.Conv2d(3, 4, 3, rng=0, dtype="float64"), rng=0)
    x = values(0, 1, 3, 5, 5)
    for _ in range(50):
        layer.weight_orig.data = layer.weight_orig.numpy() * 1.01  # a little training
        u = layer.weight_u.numpy()
        layer(x)
    size = lambda w, *shape: np.linalg.svd(w.numpy().reshape(shape), compute_uv=False)[0]
    assert size(layer.weight, 4, 27) == pytest.approx(1, abs=1e-3)
    assert size(layer.weight, 12, 9) != pytest.approx(1, abs=1e-2)
    assert np.abs(layer.weight_u.numpy() @ u) == pytest.approx(1, abs=1e-3)  # from where it was
    assert {name for name, _ in layer.named_parameters()} == {"weight_orig", "bias"}
    kept = layer.eval().weight_u.numpy()
    layer(x)
    assert np.array_equal(layer.weight_u.numpy(), kept)


# ------------------------------------------------------------------------------------ batch norm


def test_momentum_passed_as_epsilon():
    """BatchNorm(n, 0.8): the second argument is ε. What varies by 0.1 comes out with 0.11, not 1."""
    x = 0.1 * values(0, 10_000, 1)
    right, wrong = nn.BatchNorm1d(1, momentum=0.8, dtype="float64"), nn.BatchNorm1d(1, 0.8, dtype="float64")
    assert right(x).numpy().std() == pytest.approx(1, abs=1e-3)
    assert wrong(x).numpy().std() == pytest.approx(0.11, abs=0.01)
    assert "eps=0.8" in repr(wrong)  # to be seen by whoever looks
    assert nn.BatchNorm1d(1).eps == nn.BatchNorm2d(1).eps == 1e-5


def test_momentum_with_the_meaning_of_another_library():
    """0.1 here is 0.9 in Keras: the share of the new batch, or of the past."""
    layer = nn.BatchNorm1d(1, dtype="float64")
    layer(np.array([[9.0], [11.0]]))
    close(layer.running_mean, [1.0])


def test_batch_norm_in_d_makes_one_answer_depend_on_the_others():
    x = images(small_game("batch norm")).numpy().copy()
    other = x.copy()
    other[1:] += 0.5
    for players, mixes in (("batch norm", True), ("conv", False)):
        d = small_game(players).d
        assert (np.abs((d(x) - d(other)).numpy()[0]).max() > 0.01) == mixes
        d.eval()  # running statistics: no more
        assert np.abs((d(x) - d(other)).numpy()[0]).max() < 1e-14


# ---------------------------------------------------------------------------- data, batches, epochs


def test_an_epoch_that_is_one_batch():
    """Two epochs show D each image twice, in 2 · ⌈18 / 4⌉ batches."""
    data = small_images(18)
    trainer, shown = small_trainer(data=data), []
    step = trainer.play.images.at
    trainer.play.images.at = lambda i: shown.append(step(i)) or shown[-1]
    trainer.run(epochs=2)
    assert (trainer.step, trainer.epoch, len(shown)) == (10, 2, 10)
    for epoch in (shown[:5], shown[5:]):
        rows = np.concatenate(epoch)
        assert np.array_equal(rows[np.lexsort(rows.T)], data[np.lexsort(data.T)])


def test_the_same_noise_and_the_same_batch_in_each_step():
    """Taken once, before the loop, by mistake: G would learn to draw four images."""
    trainer, given = small_trainer(data=small_images(40)), []
    game = trainer.play.game
    for name in ("g", "d"):  # what G is given, and what D is given first: real images
        network = getattr(game, name)
        forward = network.forward
        network.forward = lambda x, name=name, forward=forward: seen[name].append(x) or forward(x)
    for trainer.step in range(20):
        seen = {"g": [], "d": []}
        trainer.play.step(trainer.draws.at(trainer.step))
        given.append(tuple(x[0].numpy().tobytes() for x in (seen["d"], seen["g"])))
    for each in zip(*given, strict=True):
        assert len(set(each)) == 20


def test_the_same_order_in_each_epoch():
    batches = Batches(np.arange(30), 10, seed=0)
    first, second = (np.concatenate([batches.at(start + i) for i in range(3)]).tolist() for start in (0, 3))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second


def test_a_last_odd_batch():
    """10 rows in batches of 4: none is lost, and no batch of 2 weighs as much as one of 4."""
    batches = Batches(np.arange(10), 4, seed=0)
    assert [len(batches.at(i)) for i in range(len(batches))] == [4, 3, 3]
    with pytest.raises(ValueError, match="larger batch, or call eval"):  # what would be left of 9 images
        trainable().g(noise(count=1).numpy()[:, [0, 1, 1]].astype("float32"))
    small_trainer(data=small_images(9), batch=4).run(epochs=1)


@pytest.mark.parametrize(("last", "wrong"), [(nn.Tanh, (0, 1)), (nn.Tanh, (-2, 2)), (nn.Sigmoid, (-1, 1))])
def test_data_out_of_gs_range(last, wrong):
    """Images in [0, 1] and a G that ends in tanh: D need only look for negative numbers."""
    game = trainable()
    g = nn.Sequential(*list(game.g)[:-1], last())
    game = Game(g, game.d, game.loss, SGD(g.parameters(), 0.1), game.d_optimizer)
    right = (-1, 1) if last is nn.Tanh else (0, 1)
    pixels = (np.linspace(0, 255, 18 * PIXELS).astype(np.uint8)).reshape(18, PIXELS)
    small_trainer(game=game, data=scaled(pixels, *right))
    with pytest.raises(ValueError, match=rf"G ends with {last.__name__}, whose range is {right[0]} to 1"):
        small_trainer(game=game, data=scaled(pixels, *wrong))


def test_the_last_mode_of_a_ring_is_the_first_again():
    def different(angle):
        return len({(round(math.cos(a), 6), round(math.sin(a), 6)) for a in angle})

    assert len({tuple(c) for c in (ring(8).centres.round(6) + 0.0).tolist()}) == 8
    assert different(np.linspace(0, 2 * np.pi, 8)) == 7


def test_a_variance_for_a_standard_deviation():
    data = ring(1, sigma=0.04)
    assert (data.sample(20_000, rng()) - data.centres[0]).std() == pytest.approx(0.04, rel=0.02)


def test_the_same_seed_twice():
    results = []
    for seed in (3, 3, 4):
        trainer = small_trainer(seed=seed)
        trainer.run(steps=4)
        results.append(memory(trainer.play.game))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_what_a_resumed_run_forgets(tmp_path):
    """Adam's memory, batch statistics, the averages, the random numbers to come: nothing."""
    runs = [small_trainer(tmp_path / name, d_steps=2) for name in ("whole", "parts")]
    runs[0].run(steps=5)
    runs[1].run(steps=2)
    again = small_trainer(tmp_path / "parts", d_steps=2, resume=True)
    again.run(steps=5)
    assert same(memory(again.play.game), memory(runs[0].play.game))
    for name in ("g_optimizer", "d_optimizer"):
        a, b = (getattr(run.play.game, name).state_dict() for run in (again, runs[0]))
        assert same(a, b)
    assert same(again.play.ema.state_dict(), runs[0].play.ema.state_dict())


def test_an_average_without_batch_statistics():
    """An average of the parameters alone would draw with the running statistics of an untrained G."""
    g = small_game("batch norm").g
    average, start = EMA(g, 0.5), g.state_dict()
    for i in range(5):
        g(noise(i))
        average.update(g)
    drawn = average.module(g).state_dict()
    for name in ("2.running_mean", "2.running_var"):
        assert np.abs(drawn[name] - start[name]).max() > 0.03
        assert np.abs(drawn[name] - g.state_dict()[name]).max() > 1e-3
