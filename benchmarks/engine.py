"""The engine's speed beside PyTorch's and HIPS autograd's: `python benchmarks/engine.py`

Needs the extra `bench` (pip install -e ".[bench]"). Nothing in minigan or its tests imports this file.

Four cases, float32:

    small op   an 8 × 8 multiply of two leaves, recorded. 64 multiplications take some 10 ns: all the
               rest is overhead. Beside it, the same without recording.
    chain      forward and backward of 1,000 ops (multiply, add, in turn) on 8 × 8
    mlp        forward and backward of 784-256-256-1, leaky ReLU, softplus loss, batch 100: the
               discriminator of an MLP GAN
    hvp        the product of that network's Hessian (all weights) with a vector

At the end, the time of `import minigan` beside that of NumPy and scipy.special.

turns.py says how the libraries take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import turns

SIZES = (784, 256, 256, 1)
BATCH = 100
CASES = {"small op, not recorded": 5000, "small op": 5000, "chain": 5, "mlp": 20, "hvp": 10}  # runs a turn
LIBRARIES = ("minigan", "torch", "autograd")


def numbers() -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Weights and biases, a direction of the same shapes, and a batch."""
    rng = np.random.default_rng(0)
    shapes = [s for i, o in pairwise(SIZES) for s in ((o, i), (o,))]
    weights = [(rng.normal(size=s) * 0.05).astype("f4") for s in shapes]
    direction = [rng.normal(size=s).astype("f4") for s in shapes]
    return weights, direction, rng.normal(size=(BATCH, SIZES[0])).astype("f4")


# Each library's own idiom: a function that returns {case: a function to time}.


def minigan_cases() -> dict[str, Callable[[], Any]]:
    import minigan as mg

    weights, direction, batch = numbers()
    w = [mg.Tensor(array, requires_grad=True) for array in weights]
    v = [mg.Tensor(array) for array in direction]
    x = mg.Tensor(batch)
    a, b = (mg.Tensor(np.full((8, 8), 1.0001, "f4"), requires_grad=True) for _ in range(2))
    c, d = a.detach(), b.detach()

    def loss() -> mg.Tensor:
        h = mg.leaky_relu(mg.linear(x, w[0], w[1]), 0.2)
        h = mg.leaky_relu(mg.linear(h, w[2], w[3]), 0.2)
        return mg.softplus(mg.linear(h, w[4], w[5])).mean()

    def chain() -> None:
        y = a
        for _ in range(500):
            y = y * c
            y = y + b
        mg.grad(y.sum(), [a, b])

    def hvp() -> list[mg.Tensor]:
        gradients = mg.grad(loss(), w, create_graph=True)
        along = gradients[0] * v[0]
        total = along.sum()
        for g, u in zip(gradients[1:], v[1:], strict=True):
            total = total + (g * u).sum()
        return mg.grad(total, w, unreachable="zeros")

    return {
        "small op, not recorded": lambda: c * d,
        "small op": lambda: a * b,
        "chain": chain,
        "mlp": lambda: mg.grad(loss(), w),
        "hvp": hvp,
    }


def torch_cases() -> dict[str, Callable[[], Any]]:
    import torch
    import torch.nn.functional as F

    weights, direction, batch = numbers()
    w = [torch.tensor(array, requires_grad=True) for array in weights]
    v = [torch.tensor(array) for array in direction]
    x = torch.tensor(batch)
    a, b = (torch.full((8, 8), 1.0001, requires_grad=True) for _ in range(2))
    c, d = a.detach(), b.detach()

    def loss() -> torch.Tensor:
        h = F.leaky_relu(F.linear(x, w[0], w[1]), 0.2)
        h = F.leaky_relu(F.linear(h, w[2], w[3]), 0.2)
        return F.softplus(F.linear(h, w[4], w[5])).mean()

    def chain() -> None:
        y = a
        for _ in range(500):
            y = y * c
            y = y + b
        torch.autograd.grad(y.sum(), [a, b])

    def hvp() -> Any:
        gradients = torch.autograd.grad(loss(), w, create_graph=True)
        total = sum((g * u).sum() for g, u in zip(gradients, v, strict=True))
        return torch.autograd.grad(total, w)

    return {
        "small op, not recorded": lambda: c * d,
        "small op": lambda: a * b,
        "chain": chain,
        "mlp": lambda: torch.autograd.grad(loss(), w),
        "hvp": hvp,
    }


def autograd_cases() -> dict[str, Callable[[], Any]]:
    import autograd.numpy as anp
    from autograd import grad
    from autograd.core import VJPNode
    from autograd.tracer import new_box

    w, v, x = numbers()
    a, b = np.full((8, 8), 1.0001, "f4"), np.full((8, 8), 1.0001, "f4")
    box_a, box_b = (new_box(array, 0, VJPNode.new_root()) for array in (a, b))

    def loss(w: list[np.ndarray]) -> Any:
        h = anp.dot(x, w[0].T) + w[1]
        h = anp.maximum(h, anp.float32(0.2) * h)
        h = anp.dot(h, w[2].T) + w[3]
        h = anp.maximum(h, anp.float32(0.2) * h)
        return anp.mean(anp.logaddexp(anp.float32(0), anp.dot(h, w[4].T) + w[5]))

    def chain(ab: tuple[Any, Any]) -> Any:
        y = ab[0]
        for _ in range(500):
            y = y * b
            y = y + ab[1]
        return anp.sum(y)

    chain_gradient, gradient = grad(chain), grad(loss)

    def along(w: list[np.ndarray]) -> Any:
        return sum(anp.sum(g * u) for g, u in zip(gradient(w), v, strict=True))

    hvp = grad(along)
    return {
        "small op, not recorded": lambda: a * b,
        "small op": lambda: box_a * box_b,
        "chain": lambda: chain_gradient((a, b)),
        "mlp": lambda: gradient(w),
        "hvp": lambda: hvp(w),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns that each library gets (15)")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES)
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        turns.work(
            {"minigan": minigan_cases, "torch": torch_cases, "autograd": autograd_cases}[options.worker]()
        )
        return

    print(turns.versions(*options.libraries))
    workers = turns.Workers(__file__, options.libraries)
    head = f"{'median (least), us':24}" + "".join(f"{name:>22}" for name in options.libraries)
    print(head + f"{'minigan / torch':>18}\n" + "-" * (len(head) + 18))
    for case, runs in CASES.items():
        seconds = workers.times(case, runs, options.rounds)
        row = f"{case:24}"
        for times in seconds.values():
            row += f"{f'{statistics.median(times) * 1e6:.2f} ({min(times) * 1e6:.2f})':>22}"
        if {"minigan", "torch"} <= set(seconds):
            row += f"{turns.ratio(seconds):>18.2f}"
        print(row, flush=True)
    workers.close()
    import_times(options.rounds)


def import_times(rounds: int) -> None:
    """Time whole processes, in turn: starting Python alone, with NumPy and SciPy, with minigan."""
    programs = ("pass", "import numpy, scipy.special", "import minigan")
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program in programs:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds[program].append(time.perf_counter() - start)
    bare, scipy, ours = (statistics.median(times) * 1e3 for times in seconds.values())
    print(
        f"\nimport minigan: {ours - bare:.0f} ms; import numpy, scipy.special: {scipy - bare:.0f} ms; "
        f"ratio {(ours - bare) / (scipy - bare):.2f} (starting Python, {bare:.0f} ms, taken off)"
    )


if __name__ == "__main__":
    main()
