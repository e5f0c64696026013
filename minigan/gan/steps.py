"""The alternating optimiser: one step of the discriminator D, one step of the generator G, and so on.

G turns noise z into images, the fakes. D gives each image a number, its logit: high where it takes the
image for a real one. Each goes down a loss of its own, while the other stands still:

    L_D = loss.discriminator(D(x), D(G(z))) + terms        θ_D ← θ_D - a step along ∂L_D/∂θ_D
    L_G = loss.generator(D(G(z))) + terms                  θ_G ← θ_G - a step along ∂L_G/∂θ_G

Follow the gradients. In D's step the fakes are cut off from their history (`detach`), and
the gradient ends at D's weights. In G's step it starts at L_G, goes through D, whose weights are frozen, into
the fake images, and on through G to its weights. Each step asks for the gradients of its own weights only.

    game = Game(g, d, NonSaturating(), Adam(g.parameters(), 2e-4), Adam(d.parameters(), 2e-4))
    for step in range(10_000):
        report = alternating_step(game, [batch(step)], [noise(step)])

The losses are in losses.py; the terms (gradient penalties and their kin) in penalties.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from .. import nn
from ..finite import check_finite
from ..ops.shape import concat
from ..optim import Optimizer
from ..tensor import Tensor, grad, no_grad
from .discriminator_wrappers import last_layer
from .losses import Loss
from .term import Term

if TYPE_CHECKING:
    from .unrolled import Unrolled

__all__ = [
    "Game", "Report", "alternating_step", "discriminator_loss", "discriminator_step", "generator_loss",
    "generator_step", "gradients", "move", "simultaneous_step",
]  # fmt: skip


@dataclass
class Game:
    """The two players, and the rules.

    terms: what is added to the losses, or done to D's weights after its step. unrolled: G's loss is taken at
    the weights that D would have some steps later. reuse_fakes: G's step takes the fakes of D's last step;
    otherwise it makes its own from new noise. separate: real and fake images go through D one batch after the
    other, and not as one batch; None: unless `mixes_images` is False for every layer of D.
    """

    g: nn.Module
    d: nn.Module
    loss: Loss
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    terms: Sequence[Term] = ()
    unrolled: Unrolled | None = None
    reuse_fakes: bool = True
    separate: bool | None = None

    def __post_init__(self) -> None:
        pairs = (("G's", self.g_optimizer, "D's", self.d), ("D's", self.d_optimizer, "G's", self.g))
        for whose, optimizer, others, other in pairs:
            if set(optimizer.params) & set(other.parameters()):
                raise ValueError(
                    f"Game: {whose} optimiser has parameters of {others}; each player needs an optimiser of "
                    "its own, made of its own parameters()"
                )
        last = last_layer(self.d)
        if isinstance(last, nn.Sigmoid | nn.Softmax) and self.loss.takes_logits:
            raise ValueError(f"Game: D ends with {last}, but losses and penalties take logits; leave it out")
        for term in self.terms:
            term.check(self)

    def check_order(self, simultaneous: bool) -> None:
        """A ValueError if a term is added to both losses, but the two are not taken at the same weights."""
        for term in self.terms:
            if term.simultaneous and (self.unrolled or not simultaneous):
                raise ValueError(
                    f"{type(term).__name__} is added to both losses at the same weights of D: it needs "
                    "simultaneous steps (simultaneous_step, simultaneous=True), and no unrolled D"
                )

    @property
    def in_one_batch(self) -> bool:
        """Whether real and fake images go through D together, which is faster."""
        if self.separate is not None:
            return not self.separate
        return all(layer.mixes_images is False for layer in self.d.modules())

    def parts(self) -> dict[str, Any]:
        """All that has a state, by name."""
        optimizers = {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}
        terms = {f"term{i}": term for i, term in enumerate(self.terms)}
        return {"g": self.g, "d": self.d, **optimizers, "loss": self.loss, **terms}

    def settings(self) -> dict[str, Any]:
        """The rules, as JSON can hold them."""
        return {
            "loss": self.loss.settings(),
            "terms": [term.settings() for term in self.terms],
            "unrolled": self.unrolled and vars(self.unrolled),
            "reuse_fakes": self.reuse_fakes,
            "separate": self.separate,
        }


@dataclass
class Report:
    """The losses of a step, and D's mean output for real images and for fakes.

    d_fake_before: of the fakes in D's step, before D moves. d_fake_after: in G's step, before G moves.
    With some losses the outputs are probabilities, with others logits (Loss.mean_output). All are Tensors of
    one number: float(report.loss_d).
    """

    loss_d: Tensor | float = nan
    loss_g: Tensor | float = nan
    d_real: Tensor | float = nan
    d_fake_before: Tensor | float = nan
    d_fake_after: Tensor | float = nan


# ------------------------------------------------------------------------------ the two steps


def discriminator_step(game: Game, real: Tensor, fake: Tensor, report: Report, rng: Any = None) -> None:
    """D learns to tell real images from fakes. G stands still.

        L_D = loss.discriminator(D(x), D(G(z))) + terms        θ_D ← θ_D - a step along ∂L_D/∂θ_D

    real: a batch x. fake: G(z). rng: a generator, for terms that draw random numbers.
    """
    fake = fake.detach()  # to D a fake is an image like any other: no gradient goes back into G
    loss_d, real_logits, fake_logits = discriminator_loss(game, real, fake, rng)
    move(game.d_optimizer, gradients(game.d_optimizer, loss_d, "L_D"))
    for term in game.terms:
        term.constrain(game.d)
    game.loss.after_discriminator_step(real_logits, fake_logits)
    report.loss_d = loss_d.detach()
    report.d_real = game.loss.mean_output(real_logits)
    report.d_fake_before = game.loss.mean_output(fake_logits)


def generator_step(game: Game, real: Tensor, fake: Tensor, report: Report, rng: Any = None) -> None:
    """G learns to make fakes that D takes for real. D stands still.

        L_G = loss.generator(D(G(z))) + terms        θ_G ← θ_G - a step along ∂L_G/∂θ_G

    fake: G(z) with its history, perhaps the one from D's step. real: only some losses look at it.
    """
    with opponent(game, real, fake, rng):
        loss_g, fake_logits = generator_loss(game, real, fake, rng)
        move(game.g_optimizer, gradients(game.g_optimizer, loss_g, "L_G"))
    report.loss_g = loss_g.detach()
    report.d_fake_after = game.loss.mean_output(fake_logits)


def discriminator_loss(game: Game, real: Tensor, fake: Tensor, rng: Any) -> tuple[Tensor, Tensor, Tensor]:
    """L_D, the logits of the real images, and those of the fakes."""
    if game.in_one_batch:
        logits = game.loss.logits(game.d, concat([real, fake]))
        real_logits, fake_logits = logits[: len(real)], logits[len(real) :]
    else:
        real_logits, fake_logits = game.loss.logits(game.d, real), game.loss.logits(game.d, fake)
    loss = game.loss.discriminator(real_logits, fake_logits)
    for term in game.terms:
        extra = term.discriminator(game, real, fake, rng)
        loss = loss if extra is None else loss + extra
    return loss, real_logits, fake_logits


def generator_loss(game: Game, real: Tensor, fake: Tensor, rng: Any) -> tuple[Tensor, Tensor]:
    """L_G, and the logits of the fakes.

    In a game of zero sum L_G is -L_D, without the part about real images, which G cannot change. With an
    unrolled D it can, since D's weights depend on the fakes. So L_G is the whole of -L_D, without the terms.
    """
    whole = game.unrolled is not None and game.unrolled.steps > 0 and game.loss.zero_sum
    fake_logits = game.loss.logits(game.d, fake)
    real_logits = game.loss.logits(game.d, real) if game.loss.needs_real or whole else None
    if whole:
        assert real_logits is not None
        loss = -game.loss.discriminator(real_logits, fake_logits)
    else:
        loss = game.loss.generator(fake_logits, real_logits)
    for term in game.terms:
        extra = term.generator(game, real, fake, rng)
        loss = loss if extra is None else loss + extra
    return loss, fake_logits


def opponent(game: Game, real: Tensor, fake: Tensor, rng: Any) -> AbstractContextManager:
    """Inside, D has the weights that G plays against: its own, frozen, or those of some steps later."""
    return game.unrolled.ahead(game, real, fake, rng) if game.unrolled else nn.frozen(game.d)


def gradients(optimizer: Optimizer, loss: Tensor, name: str) -> list[Tensor | None]:
    """The gradients for this optimiser's parameters, and for no others; None for a frozen one.

    name: of the loss, for the message: the loss and its gradients have to be finite.

    `loss.backward()` would leave gradients in the other player's parameters too, and they would be added to
    those of its next step. `grad` leaves none: so D would be safe in G's step even if it were not frozen.
    (Freezing it saves the work.)
    """
    trained = [p for p in optimizer.params if p.requires_grad]
    found = dict(zip(trained, grad(loss, trained), strict=True))
    check_finite(name, loss, found.values())
    return [found.get(p) for p in optimizer.params]


def move(optimizer: Optimizer, found: Sequence[Tensor | None]) -> None:
    """One step of the optimiser along these gradients. Afterwards `.grad` is None again."""
    for parameter, gradient in zip(optimizer.params, found, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


# ----------------------------------------------------------------------------- how they alternate


def alternating_step(
    game: Game, reals: Sequence[Tensor], noises: Sequence[Tensor], rng: Any = None
) -> Report:
    """As many steps of D as there are batches in `reals`, then one of G.

    noises: z for each of D's steps, whose last fakes serve G as well; one more if the game says
    reuse_fakes=False.
    """
    report, reuse = Report(), game.reuse_fakes
    if not reals or len(noises) != len(reals) + (not reuse):
        raise ValueError(
            f"alternating_step: {len(reals)} real batches and {len(noises)} of noise; each step of D needs "
            "one of each" + ("" if reuse else ", and G's step one more of noise")
        )
    game.check_order(simultaneous=False)
    for i, (real, z) in enumerate(zip(reals, noises, strict=False), start=1):
        with nullcontext() if reuse and i == len(reals) else no_grad():
            fake = game.g(z)
        discriminator_step(game, real, fake, report, rng)
    generator_step(game, real, fake if reuse else game.g(noises[-1]), report, rng)
    return report


def simultaneous_step(game: Game, real: Tensor, z: Tensor, rng: Any = None) -> Report:
    """Both move at once: both gradients are taken before either has moved.

    With game.unrolled, the first of D's K steps is the one that D takes in this step.
    """
    game.check_order(simultaneous=True)
    fake = game.g(z)
    if game.unrolled:
        loss_d, real_logits, fake_logits = discriminator_loss(game, real, fake, rng)
        with opponent(game, real, fake, rng):
            loss_g, _ = generator_loss(game, real, fake, rng)
            found_g = gradients(game.g_optimizer, loss_g, "L_G")
    else:
        loss_d, loss_g, real_logits, fake_logits = joint_losses(game, real, fake, rng)
        found_g = gradients(game.g_optimizer, loss_g, "L_G")
    found_d = gradients(game.d_optimizer, loss_d, "L_D")
    move(game.d_optimizer, found_d)
    move(game.g_optimizer, found_g)
    for term in game.terms:
        term.constrain(game.d)
    game.loss.after_discriminator_step(real_logits, fake_logits)
    d_real, d_fake = game.loss.mean_output(real_logits), game.loss.mean_output(fake_logits)
    return Report(loss_d.detach(), loss_g.detach(), d_real, d_fake, d_fake)


def joint_losses(game: Game, real: Tensor, fake: Tensor, rng: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """L_D and L_G with the terms that belong to both, and the logits of real images and fakes."""
    loss_d, real_logits, fake_logits = discriminator_loss(game, real, fake, rng)
    loss_g, _ = generator_loss(game, real, fake, rng)
    extras = [term.both(game, loss_d, loss_g) for term in game.terms]
    for extra in extras:
        if extra is not None:
            loss_d, loss_g = loss_d + extra, loss_g + extra
    return loss_d, loss_g, real_logits, fake_logits
