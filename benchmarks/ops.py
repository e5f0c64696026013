"""The ops of a convolutional GAN beside PyTorch's: `python benchmarks/ops.py`

Needs the extra `bench` (pip install -e ".[bench]"). Nothing in minigan or its tests imports this file.

Each line is an op of a DCGAN for 28 × 28 images at batch 100 (networks.py), or another common convolution:
milliseconds, and GFLOP/s where that says something. "in a step" is how often one training step runs it; the
line "sum" adds those up. Then the step itself: its time for batches from 25 to 800 and from one thread to all
cores, and the memory it takes.

minigan works inside `minigan.performance()`, PyTorch with its defaults. Images lie in memory as each library
has them inside a network: minigan with the channels last, PyTorch with the channels first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networks
import numpy as np
import turns
from threadpoolctl import threadpool_limits

BATCH = 100
LIBRARIES = ["minigan", "torch"]
# What this step had reached before minigan was written, in bare NumPy without a tape: what to be held to.
PROTOTYPE = "hand-written NumPy: 1.06 to 1.12"


@dataclass(frozen=True)
class Op:
    """An op with its derivatives: f(library) gives the function, the shapes are those of its inputs.

    counts: how often a DCGAN step runs the forward pass, and computes the gradient of each input; 0 for what
    it does not need, None for what is not measured. together: all gradients in one go, counted by the first.
    """

    name: str
    f: Callable[[Any], Callable[..., Any]]
    shapes: tuple[tuple[int, ...], ...]
    counts: tuple[int | None, ...]
    multiply_adds: int = 0
    together: bool = False


def conv(name: str, c: int, o: int, k: int, stride: int, pad: int, size: int, *counts: int) -> Op:
    after = (size + 2 * pad - k) // stride + 1
    shapes = ((BATCH, c, size, size), (o, c, k, k))
    f = lambda lib: lambda x, w: lib.conv2d(x, w, stride=stride, padding=pad)
    return Op(name, f, shapes, counts or (0, 0, 0), BATCH * after * after * o * c * k * k)


def transposed(name: str, c: int, o: int, k: int, stride: int, pad: int, size: int, *counts: int) -> Op:
    f = lambda lib: lambda x, w: lib.conv_transpose2d(x, w, stride=stride, padding=pad)
    return Op(name, f, ((BATCH, c, size, size), (c, o, k, k)), counts, BATCH * size * size * o * c * k * k)


def norm(c: int, size: int, count: int) -> Op:
    f = lambda lib: lambda x, w, b: lib.batch_norm(x, w, b)
    shapes = ((BATCH, c, size, size), (c,), (c,))
    return Op(f"BatchNorm {c} x {size}²", f, shapes, (count, count), together=True)


def activation(name: str, c: int, size: int, count: int) -> Op:
    return Op(
        f"{name} {c} x {size}²", lambda lib: getattr(lib, name), ((BATCH, c, size, size),), (count, count)
    )


OPS = [
    conv("conv 1 → 64, 4x4/2, 28²", 1, 64, 4, 2, 1, 28, 3, 1, 2),
    conv("conv 64 → 128, 4x4/2, 14²", 64, 128, 4, 2, 1, 14, 3, 3, 2),
    transposed("convT 128 → 64, 4x4/2, 7²", 128, 64, 4, 2, 1, 7, 1, 1, 1),
    transposed("convT 64 → 1, 4x4/2, 14²", 64, 1, 4, 2, 1, 14, 1, 1, 1),
    Op("linear 100 → 6272", lambda lib: lib.linear, ((BATCH, 100), (6272, 100), (6272,)), (1, 0, 1, 1)),
    Op("linear 6272 → 1", lambda lib: lib.linear, ((BATCH, 6272), (1, 6272), (1,)), (3, 3, 2, 2)),
    norm(64, 14, 1),
    norm(128, 7, 4),
    activation("leaky_relu", 64, 14, 3),
    activation("leaky_relu", 128, 7, 3),
    activation("relu", 64, 14, 1),
    activation("relu", 128, 7, 1),
    activation("tanh", 1, 28, 1),
    conv("conv 64 → 64, 3x3/1, 14²", 64, 64, 3, 1, 1, 14),
    conv("conv 64 → 64, 3x3/1, 32²", 64, 64, 3, 1, 1, 32),
    conv("conv 64 → 128, 5x5/2, 14²", 64, 128, 5, 2, 2, 14),
    conv("conv 3 → 64, 4x4/2, 32²", 3, 64, 4, 2, 1, 32),
]
_D = [(64, 1, 4, 4), (64,), (128, 64, 4, 4), (128,), (128,), (128,), (1, 6272), (1,)]
_G = [(6272, 100), (6272,), (128,), (128,), (128, 64, 4, 4), (64,), (64,), (64,), (64, 1, 4, 4), (1,)]
ADAM = {"Adam, D": _D, "Adam, G": _G}


# --------------------------------------------------------------------- what each library calls it


class Minigan:
    def __init__(self) -> None:
        import minigan as mg
        from minigan import nn, optim

        self.mg, self.grad, self.optim = mg, mg.grad, optim
        for name in ("conv2d", "conv_transpose2d", "linear", "batch_norm", "relu", "tanh"):
            setattr(self, name, getattr(mg, name))
        self.leaky_relu = lambda x: mg.leaky_relu(x, 0.2)
        self.parameter = nn.module.parameter

    def tensor(self, array: np.ndarray, is_weight: bool) -> Any:
        if array.ndim == 4:
            order = (2, 3, 1, 0) if is_weight else (0, 2, 3, 1)
            array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
        return self.mg.Tensor(array, requires_grad=True)

    def gradient(self, array: np.ndarray) -> Callable[[], Any]:
        array = self.tensor(array, False).data
        return lambda: self.mg.Tensor(array, copy=False)  # a new one each time: nothing can be remembered

    no_grad = property(lambda self: self.mg.no_grad)


class Torch:
    def __init__(self) -> None:
        import torch
        import torch.nn.functional as F

        self.torch, self.no_grad, self.optim = torch, torch.no_grad, torch.optim
        self.conv2d, self.conv_transpose2d, self.linear = F.conv2d, F.conv_transpose2d, F.linear
        self.relu, self.tanh = torch.relu, torch.tanh
        self.leaky_relu = lambda x: F.leaky_relu(x, 0.2)
        self.batch_norm = lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True)

    def tensor(self, array: np.ndarray, is_weight: bool) -> Any:
        return self.torch.tensor(array, requires_grad=True)

    def gradient(self, array: np.ndarray) -> Callable[[], Any]:
        tensor = self.torch.tensor(array)
        return lambda: tensor

    def grad(self, y: Any, xs: Any, g: Any) -> Any:
        return self.torch.autograd.grad(y, xs, g, retain_graph=True)


def cases_of(library: Any) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.standard_normal(shape, dtype="float32")
    cases: dict[str, Callable[[], Any]] = {}
    for op in OPS:
        f = op.f(library)
        inputs = [library.tensor(draw(shape), i > 0) for i, shape in enumerate(op.shapes)]

        def forward(f: Any = f, inputs: Any = inputs) -> Any:
            with library.no_grad():
                return f(*inputs)

        cases[f"{op.name}: forward"] = forward
        y = f(*inputs)
        g = library.gradient(draw(tuple(y.shape)))
        if op.together or len(inputs) == 1:
            cases[f"{op.name}: backward"] = lambda y=y, xs=inputs, g=g: library.grad(y, xs, g())
            continue
        for what, x in zip(("input gradient", "weight gradient", "bias gradient"), inputs, strict=False):
            cases[f"{op.name}: {what}"] = lambda y=y, x=x, g=g: library.grad(y, [x], g())
    for name, shapes in ADAM.items():
        parameters = [library.tensor(draw(shape), True) for shape in shapes]
        for p in parameters:
            p.grad = library.tensor(draw(tuple(p.shape)), True).detach()
        cases[name] = library.optim.Adam(parameters, 2e-4, (0.5, 0.999)).step
    return cases


def counted() -> dict[str, tuple[int, int]]:
    """{case: (how often in a step, multiply-adds)}."""
    found = {}
    for op in OPS:
        whats = ["forward", *(["backward"] if op.together or len(op.shapes) == 1 else
                              ["input gradient", "weight gradient", "bias gradient"])]  # fmt: skip
        for what, count in zip(whats, op.counts, strict=False):
            found[f"{op.name}: {what}"] = (count or 0, op.multiply_adds)
    return found | dict.fromkeys(ADAM, (1, 0))


# ------------------------------------------------------------------------------------- the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns that each library gets (9)")
    parser.add_argument("--only", default="", help="measure the ops whose name contains this")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        be_a_worker(options)
        return
    print(turns.versions("minigan", "torch"))
    print(f"{cores()} cores, float32, batch {BATCH}; minigan.performance(), PyTorch with its defaults\n")
    ops(options)
    if not options.only:
        steps(options.rounds)
        cores_used(options.rounds)
        memory()


def be_a_worker(options: argparse.Namespace) -> None:
    prepare(options.worker, options.threads)
    make = networks.minigan_dcgan if options.worker == "minigan" else networks.torch_dcgan
    if options.memory:
        before = peak()
        step = make(BATCH)
        for _ in range(10):
            step()
        print(before, peak())
    elif options.batches:
        turns.work({str(batch): make(batch) for batch in options.batches})
    else:
        turns.work(cases_of(Minigan() if options.worker == "minigan" else Torch()))


def prepare(library: str, threads: int) -> None:
    if library == "minigan":
        import minigan

        if threads == 1:
            threadpool_limits(1)  # performance(1) would leave the BLAS its own threads
        minigan.performance(threads or None)
    else:
        import torch

        if threads:
            torch.set_num_threads(threads)


def ops(options: argparse.Namespace) -> None:
    workers = turns.Workers(__file__, LIBRARIES)
    head = (
        f"{'median (least), ms':42}{'minigan':>16}{'GF/s':>6}{'torch':>16}{'GF/s':>6}{'ratio':>7}  in a step"
    )
    print(head + "\n" + "-" * len(head))
    sums = dict.fromkeys(LIBRARIES, 0.0)
    for case, (count, multiply_adds) in counted().items():
        if options.only not in case:
            continue
        first = workers.times(case, 3, 1)
        runs = max(3, int(0.05 / max(first["minigan"][0], first["torch"][0], 1e-6)))
        seconds = workers.times(case, min(runs, 200), options.rounds)
        row = f"{case:42}"
        for name, times in seconds.items():
            middle = statistics.median(times)
            sums[name] += count * middle
            rate = f"{2 * multiply_adds / middle / 1e9:.0f}" if multiply_adds else ""
            row += f"{f'{middle * 1e3:.3f} ({min(times) * 1e3:.3f})':>16}{rate:>6}"
        print(f"{row}{turns.ratio(seconds):7.2f}{f'{count} x' if count else '':>11}", flush=True)
    workers.close()
    total = "".join(f"{f'{sums[name] * 1e3:.1f}':>16}{'':6}" for name in LIBRARIES)
    print(f"{'sum over a step':42}{total}{sums['minigan'] / max(sums['torch'], 1e-12):7.2f}\n")


def steps(rounds: int) -> None:
    batches = (25, 50, 100, 200, 400, 800)
    workers = turns.Workers(__file__, LIBRARIES, "--batches", *map(str, batches))
    print(f"{'a whole DCGAN step':30}{'minigan':>20}{'torch':>20}{'ratio':>7}   (ms, and us an image)")
    for batch in batches:
        seconds = workers.times(str(batch), max(2, 600 // batch), rounds)
        row = f"{f'batch {batch}':30}"
        for times in seconds.values():
            middle = statistics.median(times)
            row += f"{f'{middle * 1e3:.1f} ({middle / batch * 1e6:.0f})':>20}"
        beside = f"   ({PROTOTYPE})" if batch == BATCH else ""
        print(f"{row}{turns.ratio(seconds):7.2f}{beside}", flush=True)
    workers.close()
    print()


def cores_used(rounds: int) -> None:
    print(f"{'the same, batch 100':30}{'minigan':>20}{'torch':>20}   (ms)")
    for n in range(1, cores() + 1):
        workers = turns.Workers(__file__, LIBRARIES, "--batches", "100", "--threads", str(n))
        seconds = workers.times("100", 6, rounds)
        workers.close()
        row = "".join(f"{statistics.median(times) * 1e3:20.1f}" for times in seconds.values())
        print(f"{f'{n} threads' if n > 1 else '1 thread':30}{row}", flush=True)
    print()


def memory() -> None:
    """The largest the process has been, before the networks were made and after ten steps."""
    grown = {}
    print(f"{'peak memory, MB':30}{'before':>10}{'after':>10}{'grown by':>10}")
    for name in LIBRARIES:
        command = [sys.executable, __file__, "--worker", name, "--memory"]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        before, after = (int(word) / 1024 for word in words)
        grown[name] = after - before
        print(f"{name:30}{before:10.0f}{after:10.0f}{grown[name]:10.0f}")
    print(f"{'ratio of growth':30}{'':20}{grown['minigan'] / grown['torch']:10.2f}")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cores() -> int:
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
