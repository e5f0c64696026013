"""The losses against PyTorch's own, and a whole gradient of D's and G's weights against its autograd."""

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad, nn
from minigan.gan.by_name import loss

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
F = torch.nn.functional


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


LOSSES = {  # L_D of (r, f), L_G of (f, r), in PyTorch's words
    ("minimax",): (lambda r, f: bce(r, 1.0) + bce(f, 0.0), lambda f, r: -bce(f, 0.0)),
    ("non-saturating",): (lambda r, f: bce(r, 1.0) + bce(f, 0.0), lambda f, r: bce(f, 1.0)),
    ("non-saturating", 0.9): (lambda r, f: bce(r, 0.9) + bce(f, 0.0), lambda f, r: bce(f, 1.0)),
    ("least-squares",): (
        lambda r, f: (F.mse_loss(r, torch.ones_like(r)) + F.mse_loss(f, torch.zeros_like(f))) / 2,
        lambda f, r: F.mse_loss(f, torch.ones_like(f)) / 2,
    ),
    ("hinge",): (
        lambda r, f: F.hinge_embedding_loss(r, -torch.ones_like(r)) + F.relu(1 + f).mean(),
        lambda f, r: -f.mean(),
    ),
    ("rpgan",): (lambda r, f: bce(r - f, 1.0), lambda f, r: bce(f - r, 1.0)),
    ("ragan",): (
        lambda r, f: bce(r - f.mean(), 1.0) + bce(f - r.mean(), 0.0),
        lambda f, r: bce(f - r.mean(), 1.0) + bce(r - f.mean(), 0.0),
    ),
}


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("key", LOSSES, ids=str)
def test_value_and_gradients(key, dtype, scale):
    game = loss(key[0], **({"real_target": key[1]} if len(key) > 1 else {}))
    drawn = np.random.default_rng(3).normal(size=(2, 6, 1)).astype(dtype) * np.dtype(dtype).type(scale)
    for mine_of, theirs_of in zip(
        (game.discriminator, lambda r, f: game.generator(f, r)),
        (LOSSES[key][0], lambda r, f: LOSSES[key][1](f, r)),
        strict=True,
    ):
        r, f = (Tensor(x, requires_grad=True) for x in drawn)
        torch_r, torch_f = (torch.tensor(x, requires_grad=True) for x in drawn)
        mine, theirs = mine_of(r, f), theirs_of(torch_r, torch_f)
        rtol = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(mine.numpy(), theirs.detach().numpy(), rtol=rtol)
        found = torch.autograd.grad(theirs, [torch_r, torch_f], allow_unused=True, materialize_grads=True)
        for a, b in zip(grad(mine, [r, f], unreachable="zeros"), found, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=rtol, atol=rtol / 6)


@pytest.mark.parametrize("key", [("non-saturating",), ("ragan",)], ids=str)
def test_gradient_of_the_weights(key):
    """Of D's weights by L_D, and of G's by L_G through D."""
    game = loss(*key)
    g = nn.Sequential(nn.Linear(2, 5, rng=0), nn.Tanh(), nn.Linear(5, 3, rng=1))
    d = nn.Sequential(nn.Linear(3, 5, rng=2), nn.LeakyReLU(0.2), nn.Linear(5, 1, rng=3))
    torch_g = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    torch_d = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LeakyReLU(0.2), torch.nn.Linear(5, 1))
    for module, twin in ((g, torch_g), (d, torch_d)):
        twin.load_state_dict({name: torch.tensor(value) for name, value in module.state_dict().items()})
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(4, 3)).astype("f4"), rng.normal(size=(4, 2)).astype("f4")

    fake, torch_fake = g(Tensor(z)), torch_g(torch.tensor(z))
    torch_x = torch.tensor(x)
    mine_d = game.discriminator(d(Tensor(x)), d(fake.detach()))
    theirs_d = LOSSES[key][0](torch_d(torch_x), torch_d(torch_fake.detach()))
    mine_g = game.generator(d(fake), d(Tensor(x)))
    theirs_g = LOSSES[key][1](torch_d(torch_fake), torch_d(torch_x))
    for mine, theirs, module, twin in ((mine_d, theirs_d, d, torch_d), (mine_g, theirs_g, g, torch_g)):
        found = torch.autograd.grad(theirs, list(twin.parameters()))
        for a, b in zip(mg.grad(mine, module.parameters()), found, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)
