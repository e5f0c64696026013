"""One training step of a GAN beside PyTorch's: `python benchmarks/gan_step.py`

Needs the extra `bench` (pip install -e ".[bench]"). Nothing in minigan or its tests imports this file.

A step takes a batch of real images out of an array, draws new noise, and moves D and then G, each with Adam
and the non-saturating loss; at its end both losses are read as numbers. The networks are in networks.py.
Three workers take turns (turns.py), with the same number of threads:

    minigan   `minigan.gan.steps.alternating_step`, as a training loop calls it; inside `performance()` for
              the DCGAN, inside `performance(threads=1)` for the MLPs. It also looks for infinite gradients
              and reports D's mean logits, which the other two do not
    torch     the step as it is usually written: the fakes are detached in D's step and used again in G's. D
              is not frozen there, and the gradients it gets are thrown away at the start of its next step
    tuned     the same with PyTorch's two easy settings: fused=True in Adam, and D frozen in G's step

A ratio is minigan's time divided by PyTorch's: the median over the rounds. Below 1, minigan is faster. The
bar is the largest ratio to `torch` that is acceptable.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import networks
import numpy as np
import turns
from ops import cores
from threadpoolctl import threadpool_limits

WORKERS = ["minigan", "torch", "tuned"]
STEPS, SECONDS = 30, 1.0  # a turn is at least so many steps, and takes about as long, at least
IMAGES = 10_000
Step = Callable[[], tuple[float, float]]


@dataclass(frozen=True)
class Case:
    title: str
    bar: float
    hidden: tuple[int, ...] = ()  # layers of the MLP, from the noise to the images; () for the DCGAN


CASES = {
    "mlp": Case("MLP 100-256-256-784", 1.00, (256, 256)),
    "wide": Case("MLP 100-256-512-1024-784", 1.00, (256, 512, 1024)),
    "dcgan": Case("DCGAN 64 filters, 28 x 28", 1.15),
}


# --------------------------------------------------------------------------------- the two steps


def minigan_step(case: Case, batch: int, threads: int) -> Step:
    import minigan
    from minigan import nn, optim
    from minigan.gan.losses import NonSaturating
    from minigan.gan.steps import Game, alternating_step

    threadpool_limits(threads, user_api="blas")
    minigan.performance(threads=1 if case.hidden else threads)
    rng = np.random.default_rng(0)
    g, d = networks.mlp(nn, case.hidden, rng=rng) if case.hidden else networks.dcgan(nn, rng=rng)
    adams = [optim.Adam(net.parameters(), *networks.ADAM) for net in (g, d)]
    game = Game(g, d, NonSaturating(), *adams)
    data = images(case)

    def step() -> tuple[float, float]:
        real = minigan.Tensor(data[rng.integers(len(data), size=batch)], copy=False)
        noise = minigan.Tensor(rng.standard_normal((batch, networks.Z), dtype="float32"), copy=False)
        report = alternating_step(game, [real], [noise])
        return float(report.loss_d), float(report.loss_g)

    return step


def torch_step(case: Case, batch: int, threads: int, tuned: bool) -> Step:
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    g, d = networks.mlp(nn, case.hidden) if case.hidden else networks.dcgan(nn)
    settings = {"fused": True} if tuned else {}
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), *networks.ADAM, **settings) for net in (g, d))
    data = torch.from_numpy(images(case))

    def step() -> tuple[float, float]:
        real = data[torch.randint(len(data), (batch,))]
        fake = g(torch.randn(batch, networks.Z))
        d_adam.zero_grad()
        loss_d = F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()
        loss_d.backward()
        d_adam.step()

        g_adam.zero_grad()
        if tuned:
            d.requires_grad_(False)
        loss_g = F.softplus(-d(fake)).mean()
        loss_g.backward()
        if tuned:
            d.requires_grad_(True)
        g_adam.step()
        return loss_d.item(), loss_g.item()

    return step


def images(case: Case) -> np.ndarray:
    """The real images: a curved surface of 16 dimensions in the space of all images.

    (Images of pure noise would be told apart at once, and the gradients of a game that is over are zeros and
    numbers too small for the processor to be quick with.)
    """
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.standard_normal(shape, dtype="float32")
    data = np.tanh(draw(IMAGES, 16) @ draw(16, networks.PIXELS) / 4)
    return data if case.hidden else data.reshape(-1, 1, 28, 28)


def step_of(worker: str, case: Case, batch: int, threads: int) -> Step:
    if worker == "minigan":
        return minigan_step(case, batch, threads)
    return torch_step(case, batch, threads, tuned=worker == "tuned")


# ------------------------------------------------------------------------------------ the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns that each worker gets (7)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=cores(), help="for each worker (one for each core)")
    parser.add_argument("--batch", type=int, default=100, help="images in a batch (100)")
    parser.add_argument("--profile", action="store_true", help="show what minigan's step consists of instead")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    how = (options.batch, options.threads)
    if options.worker:
        turns.work({name: step_of(options.worker, CASES[name], *how) for name in options.cases})
        return
    threadpool_limits(options.threads, user_api="blas")  # as in the workers, so that the next line says so
    print(turns.versions("minigan", "torch"))
    print(f"threads: {options.threads} (there are {cores()} cores); float32, batch {options.batch}")
    if hasattr(os, "getloadavg"):  # threads that wait for each other suffer most from anybody else's work
        print(f"programs that were running in the last minute, on average: {os.getloadavg()[0]:.1f}")
    print()
    if options.profile:
        for name in options.cases:
            profile(CASES[name], *how)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    head = f"{'median (least), ms':28}" + "".join(f"{name:>18}" for name in WORKERS)
    head += f"{'minigan/torch':>15}{'bar':>7}{'minigan/tuned':>15}"
    print(head + "\n" + "-" * len(head))
    for name in options.cases:
        settings = ["--cases", name, "--threads", str(options.threads), "--batch", str(options.batch)]
        workers = turns.Workers(__file__, WORKERS, *settings)
        first = workers.times(name, STEPS, 1)
        steps = max(STEPS, int(SECONDS / max(times[0] for times in first.values())))
        seconds = workers.times(name, steps, options.rounds)
        workers.close()
        row = f"{CASES[name].title:28}"
        for times in seconds.values():
            row += f"{f'{statistics.median(times) * 1e3:.2f} ({min(times) * 1e3:.2f})':>18}"
        row += (
            f"{turns.ratio(seconds):15.2f}{CASES[name].bar:7.2f}{turns.ratio(seconds, theirs='tuned'):15.2f}"
        )
        print(row, flush=True)


def profile(case: Case, batch: int, threads: int) -> None:
    """What one of minigan's steps consists of. "outside ops": the batch, the noise, the walk back, Adam."""
    from minigan import trace

    step = minigan_step(case, batch, threads)
    for _ in range(10):
        step()
    print(case.title)
    with trace():
        step()
    print()


if __name__ == "__main__":
    main()
