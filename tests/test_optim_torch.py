"""The optimisers, schedules and clips against PyTorch's: a hundred steps with the same gradients."""

import numpy as np
import pytest

from minigan import Tensor, optim
from minigan.optim import schedules

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed (extra `bench`)")

SHAPES = ((5, 3), (3,), (), (2, 3, 2, 2))
STEPS = 100

# (ours, PyTorch's, settings)
CASES = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD decay": ("SGD", {"lr": 0.1, "weight_decay": 0.03}),
    "SGD momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD damped": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.03}),
    "SGD Nesterov": ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop centered": ("RMSprop", {"alpha": 0.8, "centered": True, "weight_decay": 0.03}),
    "RMSprop momentum": ("RMSprop", {"lr": 0.02, "momentum": 0.7, "eps": 1e-3}),
    "RMSprop all": ("RMSprop", {"momentum": 0.5, "centered": True}),
    "Adam": ("Adam", {}),
    "Adam GAN": ("Adam", {"lr": 2e-4, "betas": (0.5, 0.999)}),
    "Adam β₁ = 0": ("Adam", {"lr": 1e-3, "betas": (0.0, 0.99)}),
    "Adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-4}),
    "AdamW": ("AdamW", {}),
    "AdamW strong": ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
}


def pairs(rng, dtype):
    """Parameters with the same values here and there; some column-major."""
    values = [np.asfortranarray(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]
    return (
        [Tensor(a, requires_grad=True) for a in values],
        [torch.nn.Parameter(torch.tensor(np.ascontiguousarray(a).reshape(a.shape))) for a in values],
    )


def give_gradients(ours, theirs, rng, step=0):
    """The same ones; the second parameter has none in every third step."""
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        if i == 1 and step % 3 == 1:
            p.grad = q.grad = None
            continue
        g = rng.normal(size=p.shape).astype(p.dtype)
        p.grad, q.grad = Tensor(g), torch.tensor(g)


def farthest(ours, theirs):
    return max(np.abs(p.numpy() - q.detach().numpy()).max() for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-5)])
@pytest.mark.parametrize("case", CASES)
def test_a_hundred_steps(case, dtype, tolerance, rng):
    name, settings = CASES[case]
    ours, theirs = pairs(rng, dtype)
    start = [p.numpy().copy() for p in ours]
    mine = getattr(optim, name)(ours, **settings)
    reference = getattr(torch.optim, name)(theirs, **settings)
    for step in range(STEPS):
        give_gradients(ours, theirs, rng, step)
        mine.step()
        reference.step()
    assert farthest(ours, theirs) < tolerance
    assert all(np.abs(p.numpy() - a).max() > 1e-3 for p, a in zip(ours, start, strict=True))


def test_the_defaults_are_pytorchs():
    p, q = Tensor([1.0], requires_grad=True), torch.nn.Parameter(torch.ones(1))
    for name, settings in (("SGD", {"lr": 0.1}), ("RMSprop", {}), ("Adam", {}), ("AdamW", {})):
        mine = getattr(optim, name)([p], **settings)
        theirs = getattr(torch.optim, name)([q], **settings).defaults
        for setting in (
            "lr",
            "momentum",
            "dampening",
            "weight_decay",
            "nesterov",
            "alpha",
            "eps",
            "centered",
        ):
            if hasattr(mine, setting):
                assert getattr(mine, setting) == theirs[setting], (name, setting)
        if hasattr(mine, "betas"):
            assert mine.betas == theirs["betas"]


of = torch.optim.lr_scheduler
SCHEDULES = {
    "staircase": (schedules.staircase(0.1, 7, 0.5), lambda o: of.StepLR(o, 7, gamma=0.5)),
    "linear": (
        schedules.linear(0.1, 30),
        lambda o: of.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=30),
    ),
    "linear to": (
        schedules.linear(0.1, 30, end=0.04),
        lambda o: of.LinearLR(o, start_factor=1.0, end_factor=0.4, total_iters=30),
    ),
    "cosine": (schedules.cosine(0.1, 49, end=0.02), lambda o: of.CosineAnnealingLR(o, 49, eta_min=0.02)),
    "warm-up": (
        schedules.warm_up(schedules.constant(0.1), 8),
        lambda o: of.LinearLR(o, start_factor=1 / 8, total_iters=7),
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules(case, rng):
    schedule, scheduler_of = SCHEDULES[case]
    ours, theirs = pairs(rng, "float64")
    mine, reference = optim.SGD(ours, lr=schedule), torch.optim.SGD(theirs, lr=0.1)
    scheduler = scheduler_of(reference)
    for _ in range(50):
        assert mine.lr == pytest.approx(reference.param_groups[0]["lr"], abs=1e-12)
        give_gradients(ours, theirs, rng)
        mine.step()
        reference.step()
        scheduler.step()
    assert farthest(ours, theirs) < 1e-9


@pytest.mark.parametrize("max_norm", [0.5, 5.0, 500.0])
def test_clip_grad_norm(max_norm, rng):
    ours, theirs = pairs(rng, "float64")
    give_gradients(ours, theirs, rng, step=1)
    norm = optim.clip_grad_norm(ours, max_norm)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, max_norm)), rel=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_clip_grad_value(rng):
    ours, theirs = pairs(rng, "float64")
    give_gradients(ours, theirs, rng)
    optim.clip_grad_value(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())
