"""The smallest GAN there is: two numbers, and everything about it can be known exactly.

    python examples/papers/dirac_gan.py

Mescheder, Geiger & Nowozin, "Which training methods for GANs do actually converge?", ICML 2018. All real
images are the number 0. All fakes are the number θ, G's only parameter. D is a straight line of slope ψ. The
equilibrium is θ = ψ = 0. Each player goes down its own loss, so the two move along

    v(θ, ψ) = (-∂L_G/∂θ, -∂L_D/∂ψ)

Near the equilibrium, a step of size h multiplies the distance by |1 + hλ|, where λ are the eigenvalues of
the Jacobian v'(0, 0). With both λ on the imaginary axis the players circle. With both left of it they arrive,
if h is small. The paper derives λ for each way to train, with f(t) = -log(1 + e⁻ᵗ), so that f'(0) = 1/2 and
f''(0) = -1/4; for WGAN f(t) = t. Here λ is measured: L_G and L_D are those that `minigan.gan` trains with,
and `grad` differentiates them twice, and a third time for consensus.

The authors' code differs in two places. A part of its gradient of consensus has a factor 1/2 too much; λ is
the same, as that part vanishes faster at 0, but distances are not, and here the gradient is whole. It draws
instance noise at random; here the mean over the noise is computed.
"""

from __future__ import annotations

import argparse
import cmath
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import study
import tables

from minigan import Tensor, grad, nn
from minigan.gan import Game, Term
from minigan.gan.consensus import Consensus
from minigan.gan.losses import Loss, Minimax, NonSaturating, Wasserstein
from minigan.gan.penalties import R1, R2, GradientPenalty
from minigan.gan.relativistic import RelativisticPairing
from minigan.gan.steps import gradients, joint_losses, move
from minigan.gan.weight_limits import WeightClipping
from minigan.optim import SGD, Optimizer
from minigan.streams import stream

H, START = 0.2, (1.0, 1.0)  # the size of a step, and (θ, ψ) at the beginning
STEPS = {"quick": 10, "default": 500, "full": 500}
SLOPE, CURVATURE = 0.5, -0.25  # f'(0) and f''(0)
NODES = 8  # of the quadrature over the noise; with 30, the distances are the same to two digits
ROUNDS = [(1, 1, 0.2), (1, 5, 0.2), (5, 5, 0.2), (5, 5, 0.78), (5, 5, 0.82), (2, 8, 1.05)]  # n_g, n_d, h

parser = study.arguments(__doc__, "dirac_gan", seeds=1)
parser.epilog = "Nothing is random here: --seeds changes nothing, and --full is the same as the default."
parser.set_defaults(jobs=1)  # a second for each trial: not worth a process


class Generator(nn.Module):
    """G(z) = θ + z. z is 0, or the instance noise."""

    def __init__(self, theta: float, backend: str):
        self.theta = Tensor(theta, requires_grad=True, dtype="float64", backend=backend)

    def forward(self, z: Tensor) -> Tensor:
        return self.theta + z


class Discriminator(nn.Module):
    """D(x) = -ψ x. The paper's ψ x is high for fakes; minigan's logits are high for real images."""

    def __init__(self, psi: float, backend: str):
        self.psi = Tensor(psi, requires_grad=True, dtype="float64", backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        return -self.psi * x


@dataclass
class Dirac:
    """A way to train: a row of the table.

    noise: σ of instance noise. formula: of λ, in words, or why there is none. expected: its two values.
    by_hand: the distances after 500 steps, computed without minigan, with v written out.
    """

    name: str
    loss: Loss
    terms: Sequence[Term]
    by_hand: str
    formula: str
    expected: tuple[complex, complex] | None = None
    noise: float = 0.0

    def game(self, theta: float, psi: float, backend: str = "numpy") -> Game:
        g, d = Generator(theta, backend), Discriminator(psi, backend)
        return Game(g, d, self.loss, SGD(g.parameters(), H), SGD(d.parameters(), H), self.terms)


def pair(middle: float, slope: float = SLOPE) -> tuple[complex, complex]:
    """m ± √(m² - f'(0)²)"""
    root = cmath.sqrt(middle**2 - slope**2)
    return middle + root, middle - root


def damped(name: str, loss: Loss, term: Term, by_hand: str) -> Dirac:
    """R1 or R2: both are γ/2 ψ² here, as a straight line is as steep at 0 as it is at θ."""
    gamma = term.weight
    formula, expected = "-γ/2 ± √(γ²/4 - f'(0)²)", pair(-gamma / 2)
    return Dirac(f"{name}, γ = {gamma:g}", loss, [term], by_hand, formula, expected)


ROWS = [
    Dirac("GAN", Minimax(), [], "3.1 / 1.42", "± i f'(0)", pair(0)),
    Dirac("non-saturating GAN", NonSaturating(), [], "0.64 / 0.284", "± i f'(0)", pair(0)),
    Dirac("WGAN", Wasserstein(), [], "2.56e+04 / 1.4", "± i f'(0), f'(0) = 1", pair(0, slope=1)),
    Dirac(
        "WGAN, clipped at 1", Wasserstein(), [WeightClipping(1.0)], "1 / 1.02",
        "none: clipping is no part of v",
    ),
    # the paper's penalty is γ/2 (|ψ| - 1)², and the weight here is what stands before the square
    Dirac("WGAN-GP, γ = 0.7", Wasserstein(), [GradientPenalty(0.35)], "1.8 / 1.22", "none: v jumps at ψ = 0"),
    Dirac(
        "GAN, instance noise σ = 0.7", Minimax(), [], "5.73e-05 / 4e-06", "f''(0)σ² ± √(f''(0)²σ⁴ - f'(0)²)",
        pair(CURVATURE * 0.7**2), noise=0.7,
    ),
    damped("GAN, R1", Minimax(), R1(0.3), "2.64e-06 / 2.3e-07"),
    damped("GAN, R1", Minimax(), R1(1.0), "9.53e-22 / 7.48e-17"),
    damped("GAN, R1", Minimax(), R1(2.0), "1.33e-06 / 1.93e-06"),
    damped("GAN, R2", Minimax(), R2(0.3), "2.64e-06 / 2.3e-07"),
    Dirac(
        "GAN, consensus γ = 1", Minimax(), [Consensus(1.0)], "2.58e-10 / 1.72e-11", "-γf'(0)² ± i f'(0)",
        (complex(-(SLOPE**2), SLOPE), complex(-(SLOPE**2), -SLOPE)),
    ),
    damped("RpGAN, R1", RelativisticPairing(), R1(1.0), "1.48e-23 / 1.92e-17"),
]  # fmt: skip


# ----------------------------------------------------------------------- v, its Jacobian, and steps


def losses(row: Dirac, game: Game) -> tuple[Tensor, Tensor]:
    """L_G and L_D as training has them, with all terms.

    With noise σu on the images, u from N(0, 1), they are means over u: Σ wₖ L(uₖ), by Gauss and Hermite.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES if row.noise else 1)  # one: u = 0
    rng = stream(0, "between real and fake")  # WGAN-GP wants one; a straight line is as steep everywhere
    found = []
    for u, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        z = Tensor([[row.noise * u]], backend=game.g.theta.backend)
        loss_d, loss_g, _, _ = joint_losses(game, z, game.g(z), rng)  # the real image is 0, and with noise z
        found.append((weight * loss_g, weight * loss_d))
    loss_g, loss_d = (reduce(add, parts) for parts in zip(*found, strict=True))
    return loss_g, loss_d


def velocity(row: Dirac, game: Game) -> list[Tensor]:
    """v = (-∂L_G/∂θ, -∂L_D/∂ψ) with a history: it can be differentiated again."""
    players = zip(losses(row, game), (game.g.theta, game.d.psi), strict=True)
    return [-grad(loss, parameter, create_graph=True) for loss, parameter in players]


def jacobian(row: Dirac, theta: float = 0.0, psi: float = 0.0, backend: str = "numpy") -> np.ndarray:
    """v'(θ, ψ), (2, 2): a row for each entry of v, a column for θ and one for ψ."""
    game = row.game(theta, psi, backend)
    slopes = [grad(v, [game.g.theta, game.d.psi]) for v in velocity(row, game)]
    return np.array([[0.0 if slope is None else float(slope) for slope in line] for line in slopes])


def advance(row: Dirac, game: Game, *optimizers: Optimizer) -> None:
    """One step of each of these players, along the gradient at the point where all are now."""
    loss_g, loss_d = losses(row, game)
    loss = {game.g_optimizer: loss_g, game.d_optimizer: loss_d}
    found = [gradients(optimizer, loss[optimizer], "the loss") for optimizer in optimizers]
    for optimizer, gradient in zip(optimizers, found, strict=True):
        move(optimizer, gradient)
    for term in game.terms:
        term.constrain(game.d)


@cache
def walk(number: int, alternating: bool, steps: int, backend: str = "numpy") -> np.ndarray:
    """(θ, ψ) from START on, (steps + 1, 2). Alternating: G moves first, as in the authors' code."""
    row, path = ROWS[number], [START]
    game = row.game(*START, backend)
    both = game.g_optimizer, game.d_optimizer
    for _ in range(steps):
        for players in zip(both) if alternating else [both]:
            advance(row, game, *players)
        path.append((float(game.g.theta), float(game.d.psi)))
    return np.array(path)


def one_round(v: np.ndarray, n_g: int, n_d: int, h: float) -> np.ndarray:
    """M of (θ, ψ) ← M (θ, ψ) near 0: n_g steps of G, then n_d of D. Shapes: v = v'(0, 0) and M (2, 2)"""
    of_g, of_d = (np.eye(2) + h * np.diag(moves) @ v for moves in ([1, 0], [0, 1]))
    return np.linalg.matrix_power(of_d, n_d) @ np.linalg.matrix_power(of_g, n_g)


# ------------------------------------------------------------------------------------ the results


def trial(number: int, steps: int, backend: str) -> dict[str, Any]:
    """Eigenvalues as (real, imaginary), how far they are from the formula, and the distances in the end."""
    row, found = ROWS[number], {}
    if row.expected:
        measured = np.linalg.eigvals(jacobian(row, backend=backend))
        if abs(measured - row.expected).max() > abs(measured[::-1] - row.expected).max():
            measured = measured[::-1]  # which of the two comes first means nothing
        found["difference"] = abs(measured - row.expected).max()
        found["eigenvalues"] = [[value.real, value.imag] for value in measured]
    for name, alternating in (("simultaneous", False), ("alternating", True)):
        found[name] = float(np.hypot(*walk(number, alternating, steps, backend)[-1]))
    return found


def write(first: complex, second: complex) -> str:
    """-0.15 ± 0.477i, or two real numbers"""
    if abs(first.imag) > 1e-6:
        return f"{first.real:.4g} ± {abs(first.imag):.4g}i"
    return f"{first.real:.4g} and {second.real:.4g}"


def table_of_rows(found: Sequence[dict[str, Any]]) -> str:
    """Eigenvalues and distances of each way to train."""
    lines = []
    for row, measured in zip(ROWS, found, strict=True):
        line = [row.name, "-", row.formula, "-", "-"]
        if row.expected:
            values = [complex(*value) for value in measured["eigenvalues"]]
            factor = max(abs(1 + H * value) for value in values)
            line = [row.name, write(*values), row.formula, f"{measured['difference']:.0e}", f"{factor:.5f}"]
        lines.append([*line, f"{measured['simultaneous']:.3g} / {measured['alternating']:.3g}", row.by_hand])
    header = ["", "λ measured", "λ by formula", "largest difference", "factor", "distance", "by hand"]
    return tables.table(header, lines)


def table_of_rounds(backend: str) -> str:
    """What a round of several steps of each player does near the equilibrium of the plain GAN."""
    v, lines = jacobian(ROWS[0], backend=backend), []
    for n_g, n_d, h in ROUNDS:
        m = one_round(v, n_g, n_d, h)
        trace, largest = 2 - n_g * n_d * (h * SLOPE) ** 2, abs(np.linalg.eigvals(m)).max()
        numbers = np.sqrt(n_g * n_d) * h, np.linalg.det(m), np.trace(m), trace, largest
        lines.append([n_g, n_d, h, *(f"{number:.4f}" for number in numbers)])
    header = ["n_g", "n_d", "h", "√(n_g n_d) h", "determinant", "trace", "trace by formula", "largest factor"]
    return tables.table(header, lines)


TEXT = """\
λ: the eigenvalues of v'(0, 0), differentiated by minigan, and by the formulas of Mescheder et al. (2018).
Factor: the larger |1 + hλ|. A simultaneous step, h = {h}, multiplies a small distance by it, in the long run.
Distance: from the equilibrium after {steps} steps from (θ, ψ) = (1, 1), simultaneous / alternating (G first).
By hand: the same after 500 steps, computed without minigan from v written out; it is not from the paper.

{rows}

- The non-saturating GAN has imaginary λ, but what v'(0, 0) leaves out pulls it in, the less the closer it is.
  In alternating steps the distance falls as slowly as 1/√steps. In simultaneous ones it stays at about 0.6,
  where the pull and the factor 1.005 balance.
- Clipping happens after a step, so it is no part of v. Within the limits, v is that of WGAN. The slope of |ψ|
  in WGAN-GP's penalty jumps from -1 to 1 at ψ = 0, so v has no derivative there. Neither of the two arrives.
- RpGAN has the same v as the non-saturating GAN. Huang et al. (2024, R3GAN), Lemma B.4, print
  √(γ²/4 - f'(0)) in equation (12): a square is missing, which their equation (15) has. For γ = 1 the printed
  formula gives -0.5 ± 0.5i. Measured is -0.5, twice.

## Steps in turn

n_g steps of G, then n_d of D, in the plain GAN near the equilibrium: (θ, ψ) ← M (θ, ψ). The determinant of
M is 1, its trace 2 - n_g n_d h² f'(0)². So both eigenvalues lie on the unit circle where √(n_g n_d) h is
at most 2/|f'(0)| = 4, and one lies outside where it is more. The players circle at best.

{rounds}
"""


def draw(path: Path, steps: int, backend: str) -> None:
    """v as arrows of equal length, and the first 150 steps of both ways to take turns, for each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10.5), layout="constrained")
    line = np.linspace(-1.9, 1.9, 12)  # an even number, so that 0, where WGAN-GP's v jumps, is not among them
    for number, axes in enumerate(figure.subplots(3, 4, sharex=True, sharey=True).flat):
        row = ROWS[number]
        for psi in line:
            v = np.array([[float(v) for v in velocity(row, row.game(theta, psi))] for theta in line])
            v /= np.linalg.norm(v, axis=1, keepdims=True)
            axes.quiver(line, np.full_like(line, psi), v[:, 0], v[:, 1], color="0.7", scale=20, width=0.005)
        for name, colour in (("simultaneous", "tab:orange"), ("alternating", "tab:blue")):
            theta, psi = walk(number, name == "alternating", steps, backend)[:151].T
            axes.plot(theta, psi, ".-", color=colour, markersize=3, linewidth=0.8, label=f"{name} steps")
        axes.plot(*START, "k^", label="start")
        axes.plot(0, 0, "kx", label="equilibrium")
        axes.set(title=row.name, xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal")
    figure.supxlabel("θ, where the fakes are")
    figure.supylabel("ψ, the slope of D")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=100)


def main(options: argparse.Namespace) -> None:
    """Measure each row; draw; write the tables."""
    steps = STEPS[options.size]
    results = study.Results(options, {"steps": steps, "h": H, "start": START})
    trials = {row.name: partial(trial, n, steps, options.backend) for n, row in enumerate(ROWS)}
    rows, rounds = table_of_rows(results.measure(trials)), table_of_rounds(options.backend)
    draw(results.folder / "figure.png", steps, options.backend)
    reduced = "nothing." if steps == 500 else f"{steps} steps in place of 500, so the distances mean nothing."
    results.write_up("Dirac-GAN", reduced, TEXT.format(h=H, steps=steps, rows=rows, rounds=rounds))


if __name__ == "__main__":
    study.run(main, parser)
