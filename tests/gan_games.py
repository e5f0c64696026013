"""Small games for tests: two players of some fifty numbers, and the gradient that a step really used.

A step does not hand out its gradient. But with SGD and a learning rate of 1 it can be seen:

    θ_before - θ_after = ∂L/∂θ

and that can be compared with differences of the loss, one number of θ after the other.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from minigan import Tensor, nn
from minigan.gan import Game, NonSaturating, Report, discriminator_loss, discriminator_step, generator_loss
from minigan.gan.discriminator_wrappers import InstanceNoise, Packed
from minigan.gan.weight_limits import spectral
from minigan.optim import SGD, Adam

NOISE, BATCH = 2, 4


def values(seed, *shape):
    """Numbers from N(0, 1), the same for the same seed and shape."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def same(a, b):
    """Two states, bit for bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def close(a, b, rtol=1e-12, atol=1e-14):
    a, b = (x.numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (a, b))
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------------------- the players


def mlp(inputs=NOISE, outputs=2, hidden=3, after=()):
    """inputs → hidden → outputs, with the layers of `after` behind the first one."""
    after = after or (nn.Tanh(),)
    return nn.Sequential(nn.Linear(inputs, hidden, rng=0), *after, nn.Linear(hidden, outputs, rng=0))


def drawing():
    """A G with batch normalisation, for images of 1 × 4 × 4."""
    return nn.Sequential(
        nn.Linear(NOISE, 8, bias=False, rng=0), nn.Reshape(2, 2, 2), nn.BatchNorm2d(2), nn.Softplus(),
        nn.ConvTranspose2d(2, 1, 2, stride=2, rng=0), nn.Tanh(),
    )  # fmt: skip


def seeing(*after, patches=False):
    """A D for images of 1 × 4 × 4, with the layers of `after` behind the convolution."""
    last = [nn.Conv2d(2, 1, 1, rng=0)] if patches else [nn.Flatten(), nn.Linear(8, 1, rng=0)]
    return nn.Sequential(nn.Conv2d(1, 2, 2, stride=2, rng=0), *after, nn.LeakyReLU(0.2), *last)


def crowd():
    """A D that compares the images of a batch."""
    return nn.Sequential(
        nn.Linear(2, 3, rng=0), nn.Tanh(), nn.MinibatchStdDev(group_size=2), nn.Linear(4, 1, rng=0)
    )


PLAYERS = {  # makes G, makes D
    "mlp": (mlp, lambda: mlp(outputs=1, hidden=4)),
    "batch norm": (drawing, lambda: seeing(nn.BatchNorm2d(2))),
    "conv": (drawing, seeing),
    "patches": (drawing, lambda: seeing(patches=True)),
    "layer norm": (mlp, lambda: mlp(outputs=1, hidden=4, after=(nn.LayerNorm(4), nn.Tanh()))),
    "dropout": (
        lambda: mlp(hidden=4, after=(nn.Tanh(), nn.Dropout(0.4, rng=0))),
        lambda: mlp(outputs=1, hidden=5, after=(nn.SiLU(), nn.Dropout(0.4, rng=0))),
    ),
    "minibatch stddev": (mlp, crowd),
    "autoencoder": (mlp, lambda: mlp(outputs=2)),
    "packed": (mlp, lambda: Packed(mlp(4, outputs=1), 2)),
    "noisy": (mlp, lambda: InstanceNoise(mlp(outputs=1), 0.3, rng=0)),
    "spectral": (mlp, lambda: mlp(outputs=1, hidden=4)),
}


def fill(module, seed):
    """Numbers of size 1 for all parameters, those of normalising layers included."""
    for i, p in enumerate(module.parameters()):
        p.data = 0.8 * values(seed + i, *p.shape)


def small_game(players="mlp", loss=None, terms=(), optimizer=lambda params: SGD(params, 1.0), **rules):
    """A Game of these players in float64. terms: a sequence, or a function of D that makes one."""
    g, d = (make() for make in PLAYERS[players])
    fill(g.to(dtype="float64"), 10)
    fill(d.to(dtype="float64"), 20)
    if players == "spectral":
        spectral(d, 0)
        for _ in range(200):  # until u and v are the singular vectors: there a step of theirs changes no σ
            d(np.zeros((1, 2)))
    terms = terms(d) if callable(terms) else terms
    game = Game(g, d, loss or NonSaturating(), optimizer(g.parameters()), optimizer(d.parameters()), terms)
    return replace(game, **rules)


def images(game, seed=1, count=BATCH):
    """A batch of real images x, of the shape that G makes, between -1 and 1."""
    shape = (1, 4, 4) if isinstance(game.g[-1], nn.Tanh) else (2,)
    return Tensor(np.tanh(values(seed, count, *shape)))


def noise(seed=2, count=BATCH):
    return Tensor(values(seed, count, NOISE))


# ------------------------------------------------------------------------- what they remember


def networks(game):
    return [game.g, game.d]


def memory(game):
    """All that a step may change: parameters, buffers, and what the loss remembers."""
    return {
        f"{i}.{name}": value
        for i, part in enumerate([*networks(game), game.loss])
        for name, value in part.state_dict().items()
    }


def recall(game, state):
    """Back to what `memory` gave. Dropout and its kind begin anew, with the random numbers of before."""
    for i, part in enumerate([*networks(game), game.loss]):
        part.load_state_dict(
            {name.split(".", 1)[1]: v for name, v in state.items() if name[: len(f"{i}.")] == f"{i}."}
        )
    for i, module in enumerate(m for network in networks(game) for m in network.modules()):
        if module.rng is not None:
            module.rng = np.random.default_rng(i)


def terms_rng():
    """The random numbers for penalties: the same every time."""
    return np.random.default_rng(7)


# -------------------------------------------------------------------- a step, and the truth about it


def used_by(step, network, game, real, z):
    """{name: ∂L/∂θ}, the gradient by which `step`, a step of SGD with rate 1, has moved this network."""
    start = memory(game)
    recall(game, start)
    before = network.state_dict()
    step(game, real, game.g(z), Report(), terms_rng())
    after = network.state_dict()
    recall(game, start)
    return {name: before[name] - after[name] for name, _ in network.named_parameters()}


def loss_of_d(game, real, z):
    """L_D as a function of where the players are. Everything that it changes must be recalled."""
    return float(discriminator_loss(game, real, game.g(z).detach(), terms_rng())[0])


def loss_of_g(game, real, z):
    """L_G likewise. If D is to be unrolled, a copy of it goes through ordinary steps first."""
    fake, rng = game.g(z), terms_rng()
    if game.unrolled is not None:
        rule, d = game.unrolled, copy.deepcopy(game.d)
        lr = game.d_optimizer.lr if rule.lr is None else rule.lr
        params = d.parameters()
        optimizer = SGD(params, lr) if rule.optimizer == "sgd" else Adam(params, lr, *ahead(rule))
        game = replace(game, d=d, d_optimizer=optimizer, unrolled=None)
        for _ in range(rule.steps):
            discriminator_step(game, real, fake, Report(), rng)
        if rule.steps and game.loss.zero_sum:
            judged = [game.loss.logits(d, x) for x in (real, fake)]
            return -float(game.loss.discriminator(*judged))
    return float(generator_loss(game, real, fake, rng)[0])


def ahead(rule):
    """β and ε of the Adam of the steps ahead, where D's own optimiser is no Adam."""
    return rule.betas or (0.5, 0.999), 1e-8 if rule.eps is None else rule.eps


def by_differences(loss, network, game, real, z, h=1e-3):
    """{name: ∂L/∂θ} by central differences with steps h and h/2, extrapolated; error of order h⁴."""
    start = memory(game)
    slopes = {}
    for name, p in network.named_parameters():
        slopes[name] = slope = np.zeros(p.shape)
        centre = p.numpy().copy()
        for index in np.ndindex(p.shape):

            def at(t, p=p, centre=centre, index=index):
                recall(game, start)
                moved = centre.copy()
                moved[index] += t
                p.data = moved
                return loss(game, real, z)

            wide, narrow = ((at(t) - at(-t)) / (2 * t) for t in (h, h / 2))
            slope[index] = (4 * narrow - wide) / 3
    recall(game, start)
    return slopes


# ----------------------------------------------------------------------------- the same without a tape


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(p, x):
    """y = W₂ tanh(W₀ x + b₀) + b₂ of mlp(), and the hidden layer h, which `backward` needs."""
    h = np.tanh(x @ p["0.weight"].T + p["0.bias"])
    return h, h @ p["2.weight"].T + p["2.bias"]


def backward(p, x, h, dy):
    """The gradients for the parameters, and for x, given that for y."""
    dh = dy @ p["2.weight"] * (1 - h * h)
    return {"0.weight": dh.T @ x, "0.bias": dh.sum(0), "2.weight": dy.T @ h, "2.bias": dy.sum(0)}, (
        dh @ p["0.weight"]
    )


class ByHand:
    """The game of two mlp()s, non-saturating, with SGD, derived by hand. mistake: what to do wrong in it."""

    def __init__(self, game, mistake=None):
        self.g, self.d, self.mistake = game.g.state_dict(), game.d.state_dict(), mistake
        self.left_in_d, self.left_in_g = [], []  # gradients of the other player's step, not zeroed

    def d_step(self, x, z, lr):
        (hg, fake), n = forward(self.g, z), len(x)
        (hr, r), (hf, f) = forward(self.d, x), forward(self.d, fake)
        if self.mistake == "D keeps one cache, and the fakes overwrite it":
            hr = hf
        on_real, _ = backward(self.d, x, hr, -sigmoid(-r) / n)
        on_fake, dfake = backward(self.d, fake, hf, sigmoid(f) / n)
        if self.mistake == "no detach, and G moves in D's step":
            move(self.g, [backward(self.g, z, hg, dfake)[0]], lr)
        if self.mistake == "no detach, and D's step leaves gradients in G":
            self.left_in_g = [backward(self.g, z, hg, dfake)[0]]
        move(self.d, [on_real, on_fake, *self.left_in_d], n * lr if self.mistake == "sum for mean" else lr)

    def g_step(self, z, lr):
        hg, fake = forward(self.g, z)
        hf, f = forward(self.d, fake)
        on_d, dfake = backward(self.d, fake, hf, -sigmoid(-f) / len(z))
        if self.mistake == "D moves in G's step":
            move(self.d, [on_d], lr)
        if self.mistake == "G's step leaves gradients in D":
            self.left_in_d = [on_d]
        if self.mistake == "D is a number to G":
            dfake = np.zeros_like(dfake)
        move(self.g, [backward(self.g, z, hg, dfake)[0], *self.left_in_g], lr)

    def steps(self, reals, noises, lr):
        for x, z in zip(reals, noises, strict=True):
            self.d_step(x.numpy(), z.numpy(), lr)
            self.g_step(z.numpy(), lr)

    def distance(self, game):
        """How far it is from a Game: the largest difference of two parameters."""
        pairs = ((self.g, game.g.state_dict()), (self.d, game.d.state_dict()))
        return max(np.abs(mine[name] - theirs[name]).max() for mine, theirs in pairs for name in mine)


def move(p, gradients, lr):
    for gradient in gradients:
        for name, slope in gradient.items():
            p[name] = p[name] - lr * slope
