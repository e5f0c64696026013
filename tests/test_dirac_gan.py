"""The Dirac-GAN (examples/papers/dirac_gan.py): fields, eigenvalues and steps, and what they are by hand."""

import cmath

import dirac_gan
import numpy as np
import pytest

from minigan import Tensor
from minigan.gan import alternating_step, simultaneous_step
from minigan.gan.losses import Minimax, NonSaturating, Wasserstein
from minigan.gan.penalties import R1, R2
from minigan.gan.relativistic import RelativisticPairing
from minigan.streams import stream

ROWS = {row.name: row for row in dirac_gan.ROWS}
every_row = pytest.mark.parametrize("name", ROWS)


# ------------------------------------------------------------------------- v by hand, and its eigenvalues


def f1(t):
    """f'(t), f(t) = -log(1 + e⁻ᵗ)"""
    return 1 / (1 + np.exp(t))


def f2(t):
    """f''(t)"""
    return -f1(t) * f1(-t)


def minimax(theta, psi, gamma=0.0):
    return -psi * f1(psi * theta), theta * f1(psi * theta) - gamma * psi


def non_saturating(theta, psi, gamma=0.0):
    return -psi * f1(-psi * theta), theta * f1(psi * theta) - gamma * psi


def gradient_penalty(theta, psi):
    return -psi, theta - 0.7 * (abs(psi) - 1) * np.sign(psi)


def noisy(theta, psi):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    u, w = 0.7 * nodes, weights / weights.sum()
    fake = f1(psi * (theta + u))
    return -psi * (w @ fake), w @ ((theta + u) * fake - u * f1(-psi * u))


def consensus(theta, psi):
    """v - ∇ ½ (θ² + ψ²) f'(ψθ)²"""
    t, r = psi * theta, theta**2 + psi**2
    v_g, v_d = minimax(theta, psi)
    return (
        v_g - theta * f1(t) ** 2 - r * f1(t) * f2(t) * psi,
        v_d - psi * f1(t) ** 2 - r * f1(t) * f2(t) * theta,
    )


BY_HAND = {
    "GAN": minimax,
    "non-saturating GAN": non_saturating,
    "WGAN": lambda theta, psi: (-psi, theta),
    "WGAN, clipped at 1": lambda theta, psi: (-psi, theta),
    "WGAN-GP, γ = 0.7": gradient_penalty,
    "GAN, instance noise σ = 0.7": noisy,
    "GAN, R1, γ = 0.3": lambda theta, psi: minimax(theta, psi, 0.3),
    "GAN, R1, γ = 1": lambda theta, psi: minimax(theta, psi, 1),
    "GAN, R1, γ = 2": lambda theta, psi: minimax(theta, psi, 2),
    "GAN, R2, γ = 0.3": lambda theta, psi: minimax(theta, psi, 0.3),
    "GAN, consensus γ = 1": consensus,
    "RpGAN, R1, γ = 1": lambda theta, psi: non_saturating(theta, psi, 1),
}

EIGENVALUES = {
    "GAN": (0.5j, -0.5j),
    "non-saturating GAN": (0.5j, -0.5j),
    "WGAN": (1j, -1j),
    "GAN, instance noise σ = 0.7": (-0.1225 + 0.4847615393j, -0.1225 - 0.4847615393j),
    "GAN, R1, γ = 0.3": (-0.15 + 0.4769696007j, -0.15 - 0.4769696007j),
    "GAN, R1, γ = 1": (-0.5, -0.5),
    "GAN, R1, γ = 2": (-0.1339745962, -1.8660254038),
    "GAN, R2, γ = 0.3": (-0.15 + 0.4769696007j, -0.15 - 0.4769696007j),
    "GAN, consensus γ = 1": (-0.25 + 0.5j, -0.25 - 0.5j),
    "RpGAN, R1, γ = 1": (-0.5, -0.5),
}


def same_pair(found, expected):
    """The same two numbers, to 1e-6, in any order."""
    assert min(abs(np.subtract(found, order)).max() for order in (expected, expected[::-1])) < 1e-6


def velocity(row, theta, psi):
    return np.array([float(v) for v in dirac_gan.velocity(row, row.game(theta, psi))])


@pytest.mark.parametrize("name", EIGENVALUES)
def test_eigenvalues_at_the_equilibrium(name, backend):
    row = ROWS[name]
    assert list(velocity(row, 0.0, 0.0)) == [0, 0]
    same_pair(np.linalg.eigvals(dirac_gan.jacobian(row, backend=backend)), EIGENVALUES[name])
    same_pair(row.expected, EIGENVALUES[name])
    assert dirac_gan.trial(dirac_gan.ROWS.index(row), 1, backend)["difference"] < 1e-6


@pytest.mark.parametrize(("loss", "slope"), [(Minimax, 0.5), (NonSaturating, 0.5), (RelativisticPairing, 0.5),
                                             (Wasserstein, 1.0)])  # fmt: skip
@pytest.mark.parametrize("gamma", [0.1, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("terms", [[R1], [R2], [R1, R2]])
def test_zero_centred_penalties(loss, slope, gamma, terms):
    """λ = -γ/2 ± √(γ²/4 - f'(0)²), whatever the loss; R1 and R2 together have half of γ each"""
    row = dirac_gan.Dirac("", loss(), [term(gamma / len(terms)) for term in terms], "", "")
    root = cmath.sqrt(gamma**2 / 4 - slope**2)
    same_pair(np.linalg.eigvals(dirac_gan.jacobian(row)), (-gamma / 2 + root, -gamma / 2 - root))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_r3gan_equation_12_lacks_a_square(gamma):
    """Lemma B.4 prints √(γ²/4 - f'(0)). With γ = 1 that is -0.5 ± 0.5i; in truth -0.5 is a double root"""
    row = dirac_gan.Dirac("", RelativisticPairing(), [R1(gamma)], "", "")
    found = np.linalg.eigvals(dirac_gan.jacobian(row))
    printed = -gamma / 2 + cmath.sqrt(gamma**2 / 4 - 0.5)
    assert abs(found - printed).min() > 0.1
    if gamma == 1:
        assert abs(printed - (-0.5 + 0.5j)) < 1e-12
        same_pair(found, (-0.5, -0.5))


@every_row
def test_the_field(name, rng):
    """v is what one finds by hand, and v' is the slope of that."""
    row, e = ROWS[name], 1e-5
    for theta, psi in rng.uniform(-1.5, 1.5, (4, 2)):
        np.testing.assert_allclose(velocity(row, theta, psi), BY_HAND[name](theta, psi), atol=1e-5)
        columns = [
            np.subtract(velocity(row, theta + a, psi + b), velocity(row, theta - a, psi - b)) / (2 * e)
            for a, b in ((e, 0), (0, e))
        ]
        np.testing.assert_allclose(dirac_gan.jacobian(row, theta, psi), np.transpose(columns), atol=1e-8)


def test_rpgan_has_the_field_of_the_non_saturating_gan(rng):
    rpgan = dirac_gan.Dirac("", RelativisticPairing(), [], "", "")
    for theta, psi in rng.uniform(-2, 2, (5, 2)):
        expected = velocity(ROWS["non-saturating GAN"], theta, psi)
        np.testing.assert_allclose(velocity(rpgan, theta, psi), expected, rtol=1e-12)


def test_wgan_gp_jumps():
    row = ROWS["WGAN-GP, γ = 0.7"]
    jump = velocity(row, 0.0, 1e-9) - velocity(row, 0.0, -1e-9)
    np.testing.assert_allclose(jump, [0, 2 * 0.7], atol=1e-8)


# ------------------------------------------------------------------------------------------- steps


@every_row
@pytest.mark.parametrize("alternating", [False, True])
def test_steps_by_hand(name, alternating):
    """Alternating: G first, and D sees where G has gone."""
    x, path = np.array([1.0, 1.0]), [[1.0, 1.0]]
    for _ in range(6):
        for moves in ([1, 0], [0, 1]) if alternating else ([1, 1],):
            x = x + 0.2 * np.multiply(moves, BY_HAND[name](*x))
            if "clipped" in name:
                x[1] = np.clip(x[1], -1, 1)
        path.append(x)
    found = dirac_gan.walk(list(ROWS).index(name), alternating, 6)
    np.testing.assert_allclose(found, path, atol=1e-5 if "noise" in name else 1e-12)


@pytest.mark.parametrize("name", [name for name in ROWS if "noise" not in name])
def test_the_steps_are_those_that_train(name):
    """`advance` does what minigan.gan's steps do. There D moves first, and consensus moves both at once."""
    row, zero = ROWS[name], Tensor([[0.0]])
    ways = [lambda game, rng: simultaneous_step(game, zero, zero, rng)]
    turns = [lambda game: [(game.g_optimizer, game.d_optimizer)]]
    if "consensus" not in name:
        ways.append(lambda game, rng: alternating_step(game, [zero], [zero], rng))
        turns.append(lambda game: [(game.d_optimizer,), (game.g_optimizer,)])
    for way, turn in zip(ways, turns, strict=True):
        ours, theirs = row.game(0.8, -0.6), row.game(0.8, -0.6)
        for step in range(3):
            way(theirs, stream(0, "penalty", step))
            for players in turn(ours):
                dirac_gan.advance(row, ours, *players)
        expected = float(theirs.g.theta), float(theirs.d.psi)
        assert (float(ours.g.theta), float(ours.d.psi)) == pytest.approx(expected, rel=1e-14)


def test_r1_arrives():
    number = list(ROWS).index("GAN, R1, γ = 0.3")
    ends = [np.hypot(*dirac_gan.walk(number, alternating, 500)[-1]) for alternating in (False, True)]
    assert ends == pytest.approx([2.6e-6, 2.3e-7], rel=0.03)


@pytest.mark.parametrize(("n_g", "n_d"), [(1, 1), (1, 5), (3, 2)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99, 1.01, 1.5])
def test_several_steps_in_turn(n_g, n_d, share):
    """det 1, trace 2 - n_g n_d h² f'(0)²; on the unit circle if and only if √(n_g n_d) h ≤ 2/|f'(0)| = 4"""
    h = share * 4 / np.sqrt(n_g * n_d)
    m = dirac_gan.one_round(dirac_gan.jacobian(ROWS["GAN"]), n_g, n_d, h)
    assert np.linalg.det(m) == pytest.approx(1)
    assert np.trace(m) == pytest.approx(2 - n_g * n_d * h**2 / 4)
    sizes = abs(np.linalg.eigvals(m))
    assert (sizes == pytest.approx(1)) == (share < 1)
    assert (sizes.max() > 1.1) == (share > 1)


@pytest.mark.parametrize("name", ["GAN", "GAN, R1, γ = 0.3", "GAN, consensus γ = 1"])
def test_a_round_is_the_derivative_of_its_steps(name):
    row, e, n_g, n_d = ROWS[name], 1e-4, 2, 3

    def after(theta, psi):
        game = row.game(theta, psi)
        for player in [game.g_optimizer] * n_g + [game.d_optimizer] * n_d:
            dirac_gan.advance(row, game, player)
        return np.array([float(game.g.theta), float(game.d.psi)])

    columns = [(after(a, b) - after(-a, -b)) / (2 * e) for a, b in ((e, 0), (0, e))]
    m = dirac_gan.one_round(dirac_gan.jacobian(row), n_g, n_d, dirac_gan.H)
    np.testing.assert_allclose(m, np.transpose(columns), atol=1e-7)
