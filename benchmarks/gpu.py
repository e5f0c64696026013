"""Training steps of a GAN on a GPU, beside PyTorch's: `python benchmarks/gpu.py`

Needs CuPy (docs/gpu.md) and a PyTorch that sees the same GPU; --without-torch does without the second.
Nothing in minigan imports this file. --dry-run runs all of it without a GPU, on tiny sizes: its numbers mean
nothing.

A step takes a batch of real images, draws new noise, and moves D and then G, each with Adam and the
non-saturating loss. The networks are in networks.py. The images, as many as MNIST has, lie on the device, and
an epoch shows them in a new random order. Nobody reads a loss while time is taken. Four programs take turns,
each in a process of its own:

    minigan            `Trainer.train_step`. It also works out D's mean logits, which PyTorch's do not
    minigan captured   the same with `Trainer(..., capture=True)`: a recorded step is replayed. If it is not,
                       the program is "not there"
    torch              the step as it is usually written: the fakes are detached in D's step and used again in
                       G's; real and fake images go through D one batch after the other. D is not frozen in
                       G's step, and the gradients it gets there are thrown away
    torch graph        all of that step in one CUDA graph, recorded as PyTorch's documentation says. What
                       changes from step to step, the rows of the real images, is copied in before each replay

--tuned gives both of PyTorch's programs fused=True in Adam, a frozen D, and cuDNN's benchmark mode.

A turn is a few steps to warm up, then --steps steps between two waits for the device. All times are of one
step, in microseconds. A ratio is the median over the rounds of the ratio within the round; below 1, the
program is faster than PyTorch's. A bar is the largest ratio that is acceptable; the bar of the program
"minigan" is for full precision only. An exclamation mark says that a ratio is above its bar. TF32 is off or
on for all four (minigan/process.py).

    arithmetic   how long the matrix products of a step take at the rate of one of 4096 x 4096 x 4096
    memory       how long it takes to move the bytes of a step at the rate of a large copy (`least_bytes`).
                 Small networks stay in the GPU's cache, and may be quicker than that
    peak         MiB: all that CuPy's pools of memory hold, or torch.cuda.max_memory_allocated. The images,
                 180 MiB, are in both
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import turns

PROGRAMS = {
    "minigan": "minigan",
    "captured": "minigan captured",
    "torch": "torch",
    "graph": "torch graph",
}
IMAGES = 60_000
MIB = 2**20


@dataclass(frozen=True)
class Case:
    title: str
    hidden: tuple[int, ...]  # layers of the MLP, from the noise to the images; () for the DCGAN
    batches: tuple[int, ...]
    bars: dict[tuple[str, str], float]  # (ours, theirs): the largest ratio that is acceptable


CASES = {
    "mlp": Case(
        "MLP 100-256-256-784",
        (256, 256),
        (100, 1024),
        {("minigan", "torch"): 1.0, ("captured", "torch"): 0.35, ("captured", "graph"): 1.1},
    ),
    "dcgan": Case(
        "DCGAN 64 filters, 28 x 28",
        (),
        (100, 512),
        {("minigan", "torch"): 1.3, ("captured", "torch"): 0.8},
    ),
}
DRY_BATCHES, DRY_CHANNELS = {"mlp": (2, 4), "dcgan": (2,)}, (4, 8)


def build(case: Case, nn: Any, **draw: Any) -> tuple[Any, Any]:
    """G and D, made of the layers of minigan or of PyTorch."""
    return networks.mlp(nn, case.hidden, **draw) if case.hidden else networks.dcgan(nn, **draw)


def images(case: Case, count: int) -> np.ndarray:
    """The real images: a curved surface of 16 dimensions in the space of all images, as in gan_step.py."""
    rng = np.random.default_rng(1)
    places = rng.standard_normal((count, 16), dtype="float32")
    data = np.tanh(places @ rng.standard_normal((16, networks.PIXELS), dtype="float32") / 4)
    return data if case.hidden else data.reshape(-1, 1, 28, 28)


def count_of(batch: int, dry: bool) -> int:
    """How many images there are: whole batches."""
    return (4 if dry else IMAGES // batch) * batch


# ------------------------------------------------------------------------------ the four programs


@dataclass
class Runner:
    """A program that is ready to be measured. A step gives both losses, which may still be on the device."""

    step: Callable[[], tuple[Any, Any]]
    synchronize: Callable[[], object]
    peak: Callable[[], int | None]  # bytes
    parameters: tuple[int, int]  # of G, of D
    check: Callable[[], object] = lambda: None  # an exception if it does not do what its name says


def backend_name(dry: bool) -> str:
    """CuPy; in a dry run where it is not there (see tests/cupy_on_cpu), NumPy with a GPU's manners."""
    from minigan.backend import available

    return "strict" if dry and "cupy" not in available() else "cupy"


def minigan_runner(case: Case, batch: int, tf32: bool, captured: bool, dry: bool) -> Runner:
    import minigan
    from minigan import nn
    from minigan.backend import get

    if dry:
        import minigan.testing.strict
    else:
        minigan.performance(threads=1, keep_memory=False, tf32=tf32)
    name = backend_name(dry)
    backend = get(name)
    g, d = build(case, nn, rng=np.random.default_rng(0))
    taken: Any = nullcontext() if dry else taken_memory(backend.xp)
    with taken:
        trainer = minigan_trainer(g, d, images(case, count_of(batch, dry)), batch, name, captured)
        for _ in range(6):  # a captured step is recorded meanwhile
            trainer.train_step()

    def step() -> tuple[Any, Any]:
        report = trainer.train_step()
        return report["loss_d"], report["loss_g"]

    def peak() -> int | None:
        return None if dry else max(taken.bytes, backend.xp.get_default_memory_pool().total_bytes())

    parameters = tuple(sum(p.data.size for p in network.parameters()) for network in (g, d))
    check = all_replayed(trainer) if captured else lambda: None
    return Runner(step, backend.synchronize, peak, parameters, check)


def all_replayed(trainer: Any) -> Callable[[], None]:
    """A function that sees to it that all steps since its last call were replays."""
    capture, before = trainer.recorded, (trainer.step, trainer.recorded.replays)

    def check() -> None:
        nonlocal before
        now = trainer.step, capture.replays
        steps, replays = now[0] - before[0], now[1] - before[1]
        if capture.why is not None or replays < steps:
            raise RuntimeError(capture.why or f"{replays} of {steps} steps were replayed")
        before = now

    return check


def taken_memory(cupy: Any) -> Any:
    """Inside, `bytes` adds up what CuPy takes from the device: a recorded step has a pool of its own."""

    class Taken(cupy.cuda.MemoryHook):
        name, bytes = "Taken", 0

        def alloc_postprocess(self, *, mem_size: int, mem_ptr: int, **rest: Any) -> None:
            self.bytes += mem_size if mem_ptr else 0

    return Taken()


def minigan_trainer(g: Any, d: Any, data: np.ndarray, batch: int, backend: str, captured: bool) -> Any:
    from minigan import optim
    from minigan.gan import Game, losses
    from minigan.training import Trainer

    for network in (g, d):
        network.to(backend)
    g_adam, d_adam = (optim.Adam(network.parameters(), *networks.ADAM) for network in (g, d))
    game = Game(g, d, losses.NonSaturating(), g_adam, d_adam)
    settings: dict[str, Any] = {"noise": networks.Z, "batch": batch, "ema": 0, "samples": 1, "quiet": True}
    return Trainer(game, data, capture=captured, **settings)


def torch_runner(case: Case, batch: int, tf32: bool, in_graph: bool, tuned: bool, dry: bool) -> Runner:
    import torch
    import torch.nn.functional as F
    from torch import nn

    if not dry and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no GPU")
    if dry and in_graph:
        raise RuntimeError("a CUDA graph needs a GPU")
    device = "cpu" if dry else "cuda"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32  # on, unless told
    torch.backends.cudnn.benchmark = tuned
    g, d = (network.to(device) for network in build(case, nn))
    settings = {"capturable": in_graph, **({"fused": True} if tuned else {})}
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), *networks.ADAM, **settings) for net in (g, d))
    data = torch.from_numpy(images(case, count_of(batch, dry))).to(device)

    def step_with(rows: Any) -> tuple[Any, Any]:
        real = data[rows]
        fake = g(torch.randn(batch, networks.Z, device=device))
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
        return loss_d.detach(), loss_g.detach()

    def chosen() -> Iterator[Any]:
        """The rows of each batch, epoch after epoch."""
        while True:
            yield from torch.randperm(len(data), device=device).split(batch)

    rows = chosen()
    parameters = tuple(sum(p.numel() for p in network.parameters()) for network in (g, d))
    step = recorded(step_with, rows, g_adam, d_adam) if in_graph else lambda: step_with(next(rows))
    if dry:
        return Runner(step, lambda: None, lambda: None, parameters)
    return Runner(step, torch.cuda.synchronize, lambda: int(torch.cuda.max_memory_allocated()), parameters)


def recorded(step_with: Callable[[Any], Any], rows: Iterator[Any], *adams: Any) -> Callable[[], Any]:
    """The step in a CUDA graph: warmed up on a stream of its own, recorded once, then replayed."""
    import torch

    static_rows = next(rows).clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(11):
            step_with(static_rows)
    torch.cuda.current_stream().wait_stream(stream)

    graph = torch.cuda.CUDAGraph()
    for adam in adams:
        adam.zero_grad(set_to_none=True)  # so that the graph's own memory will hold the gradients
    with torch.cuda.graph(graph):
        losses = step_with(static_rows)

    def step() -> tuple[Any, Any]:
        static_rows.copy_(next(rows))
        graph.replay()
        return losses

    return step


# -------------------------------------------------------------------------- processes that take turns


def work(options: argparse.Namespace) -> None:
    """Be a worker: get ready, then read numbers of steps, and answer each with the seconds of one step."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed must not come between

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        runner = runner_of(options)
        for _ in range(1 if options.dry_run else 20):
            runner.step()
        runner.synchronize()
        runner.check()
        answer(parameters=runner.parameters)
        for line in sys.stdin:
            steps = int(line)
            for _ in range(max(steps // 10, 1)):
                runner.step()
            runner.synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                losses = runner.step()
            runner.synchronize()
            seconds = (time.perf_counter() - start) / steps
            runner.check()
            read = [float(loss) for loss in losses]
            if not np.isfinite(read).all():
                raise ArithmeticError(f"the losses of D and G are {read[0]} and {read[1]}")
            answer(seconds=seconds, peak=runner.peak(), losses=read)
    except Exception as error:
        answer(missing=f"{type(error).__name__}: {' '.join(str(error).split())}")


def runner_of(options: argparse.Namespace) -> Runner:
    case, how = CASES[options.only], (options.batch, options.tf32)
    if options.worker in ("minigan", "captured"):
        return minigan_runner(case, *how, captured=options.worker == "captured", dry=options.dry_run)
    graph = options.worker == "graph"
    return torch_runner(case, *how, in_graph=graph, tuned=options.tuned, dry=options.dry_run)


class Worker:
    """A process that runs one of the programs. Once it is `missing`, with a reason, it is asked no more."""

    def __init__(self, program: str, *arguments: str):
        command = [sys.executable, __file__, "--worker", program, *arguments]
        pipe = subprocess.PIPE
        self._process: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.program = program
        self.missing: str | None = None
        self.parameters: list[int] = []
        self.seconds: list[float] = []  # of one step, for each round
        self.losses: list[float] = []
        self.peak: int | None = None

    def get_ready(self) -> None:
        self.parameters = self._answer().get("parameters", [])

    def take_turn(self, steps: int) -> None:
        if self.missing is None:
            with suppress(BrokenPipeError):  # if it is gone, there will be no answer
                self._process.stdin.write(f"{steps}\n")
            answer = self._answer()
            if self.missing is None:
                self.seconds.append(answer["seconds"])
                self.losses, self.peak = answer["losses"], answer["peak"]

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self.missing = f"its process ended with exit code {self._process.wait()}"
            return {}
        answer = json.loads(line)
        self.missing = answer.get("missing")
        return answer

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def measured(case: str, batch: int, tf32: bool, options: argparse.Namespace) -> list[Worker]:
    """All programs after their turns."""
    arguments = ["--only", case, "--batch", str(batch)]
    arguments += [f"--{name}" for name in ("dry-run", "tuned") if vars(options)[name.replace("-", "_")]]
    arguments += ["--tf32"] if tf32 else []
    names = [name for name in PROGRAMS if not (options.without_torch and name in ("torch", "graph"))]
    workers = [Worker(name, *arguments) for name in names]
    try:
        for worker in workers:
            worker.get_ready()
        sizes = {worker.program: worker.parameters for worker in workers if worker.missing is None}
        if len({tuple(size) for size in sizes.values()}) > 1:
            raise SystemExit(f"{case}: the programs train different networks; parameters of G and D: {sizes}")
        for _ in range(options.rounds):
            for worker in workers:
                worker.take_turn(options.steps)
    finally:
        for worker in workers:
            worker.close()
    return workers


# --------------------------------------------------------------------- what a step takes at the least


def layers_of(network: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """For each layer with a matrix of weights: multiplications for an image, and entries of its output."""
    from minigan import Tensor, nn, no_grad

    found = []
    network.eval()
    with no_grad():
        x = Tensor(np.zeros((1, *shape), "float32"))
        for layer in network:
            y = layer(x)
            places = {
                nn.Linear: 1,
                nn.Conv2d: math.prod(y.shape[2:]),
                nn.ConvTranspose2d: math.prod(x.shape[2:]),
            }
            if type(layer) in places:
                found.append((layer.weight.size * places[type(layer)], y.size))
            x = y
    return found


def least_flop(g: list[tuple[int, int]], d: list[tuple[int, int]], batch: int) -> int:
    """Operations of the matrix products of a step: two for each multiplication.

    A product forward, one for the gradient of the weights, one for that of the input; the first layer needs
    the last of these only where D hands the gradient on to G. D's step: real and fake images through D, and
    back. G's step: noise through G; its images through D, and back to the images only; back through G.
    """
    all_g, all_d = (sum(products for products, _ in layers) for layers in (g, d))
    d_step = 2 * (3 * all_d - d[0][0])
    g_step = 2 * all_d + 3 * all_g - g[0][0]
    return 2 * batch * (d_step + g_step)


def least_bytes(g: list[tuple[int, int]], d: list[tuple[int, int]], parameters: int, batch: int) -> int:
    """Bytes that a step moves if each number is written once and read once, 4 bytes each.

    A parameter and its two moments are read and written, its gradient written and read: 8 numbers. An entry
    of the output of a layer is written, and read again on the way back, as is its gradient: 4. (Bias,
    normalisation and activation cost nothing here.) Images go through D three times, through G once. A real
    image is read and written once, to make the batch, and noise is written and read.
    """
    entries_g, entries_d = (sum(entries for _, entries in layers) for layers in (g, d))
    an_image = 4 * (entries_g + 3 * entries_d) + 2 * (networks.PIXELS + networks.Z)
    return 4 * (8 * parameters + batch * an_image)


def work_of(case: Case, batch: int) -> tuple[int, int]:
    """least_flop and least_bytes of a step."""
    from minigan import nn

    g, d = build(case, nn, rng=np.random.default_rng(0))
    parameters = sum(p.data.size for network in (g, d) for p in network.parameters())
    shape = (networks.PIXELS,) if case.hidden else (1, 28, 28)
    layers = layers_of(g, (networks.Z,)), layers_of(d, shape)
    return least_flop(*layers, batch), least_bytes(*layers, parameters, batch)


def rates(backend: Any, dry: bool) -> dict[str, float]:
    """What this device can do: operations a second in a large product, bytes a second in a large copy."""
    from minigan import performance

    xp, side, entries = backend.xp, 64 if dry else 4096, MIB // 16 if dry else 64 * MIB
    rng = np.random.default_rng(0)
    a, b = (backend.from_numpy(rng.standard_normal((side, side), dtype="float32")) for _ in range(2))
    x, y = xp.zeros(entries, dtype="float32"), xp.zeros(entries, dtype="float32")

    def least(run: Callable[[], object], times: int = 10) -> float:
        """Seconds of the fastest turn, for one run."""
        seconds = []
        for _ in range(5):
            backend.synchronize()
            start = time.perf_counter()
            for _ in range(times):
                run()
            backend.synchronize()
            seconds.append((time.perf_counter() - start) / times)
        return min(seconds)

    def copy() -> None:
        y[...] = x

    flop = 2 * side**3
    found = {"flop": flop / least(lambda: a @ b), "bytes": 2 * x.nbytes / least(copy)}
    if dry:
        return {**found, "tf32 flop": found["flop"]}
    with performance(threads=1, keep_memory=False, tf32=True):
        return {**found, "tf32 flop": flop / least(lambda: a @ b)}


# ------------------------------------------------------------------------------------ the report


def row_of(worker: Worker, by_name: dict[str, Worker], bars: dict[tuple[str, str], float]) -> dict[str, Any]:
    """What there is to say of one program."""
    row: dict[str, Any] = {"program": PROGRAMS[worker.program], "missing": worker.missing}
    if worker.missing is not None:
        return row
    row |= {"seconds": worker.seconds, "peak": worker.peak, "losses": worker.losses}
    row |= {"parameters": worker.parameters, "median": statistics.median(worker.seconds)}
    row |= {"least": min(worker.seconds), "ratios": {}, "bars": {}}
    for theirs in ("torch", "graph"):
        other = by_name.get(theirs)
        if other is not None and other.missing is None and other is not worker:
            seconds = {"minigan": worker.seconds, "torch": other.seconds}
            row["ratios"][theirs] = turns.ratio(seconds)
        if (worker.program, theirs) in bars:
            row["bars"][theirs] = bars[worker.program, theirs]
    return row


COLUMNS = (
    f"{'case':27}{'batch':>6}{'TF32':>5}  {'program':17}{'median':>9}{'least':>9}{'/ torch':>9}{'bar':>6}"
    f"{'/ graph':>9}{'bar':>6}{'arithmetic':>12}{'memory':>8}{'peak':>7}"
)


def line_of(row: dict[str, Any]) -> str:
    """A line of the table."""
    line = f"{row['case']:27}{row['batch']:6}{'on' if row['tf32'] else 'off':>5}  {row['program']:17}"
    if row["missing"] is not None:
        return f"{line}  not there: {row['missing']}"
    line += f"{row['median'] * 1e6:9.1f}{row['least'] * 1e6:9.1f}"
    for theirs in ("torch", "graph"):
        ratio, bar = row["ratios"].get(theirs), row["bars"].get(theirs)
        above = "!" if ratio and bar and ratio > bar else ""
        line += f"{f'{ratio:.2f}{above}' if ratio else '':>9}{f'{bar:.2f}' if bar else '':>6}"
    line += f"{row['arithmetic'] * 1e6:12.1f}{row['memory'] * 1e6:8.1f}"
    peak = "" if row["peak"] is None else round(row["peak"] / MIB)
    return f"{line}{peak:>7}"


def machine(dry: bool) -> dict[str, str | None]:
    """The device, its driver, and the versions of all that takes part."""
    from minigan import __version__, info

    report = info.report()
    found: dict[str, str | None] = {"python": report["python"], "minigan": __version__}
    packages = report["packages"].items()
    found |= {name: version for name, version in packages if name.startswith(("numpy", "cupy"))}
    with suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    if dry:
        return {"device": "none", **found}
    cuda = report["cuda"]
    device = next((gpu["name"] for gpu in cuda["devices"] if gpu["in use"]), "unknown")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    about = {
        "device": device,
        "driver": driver,
        "driver's CUDA": cuda["driver"],
        "CuPy's CUDA": cuda["runtime"],
    }
    return {**about, **found}


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} must be 1 or more")
    return number


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=positive, help="turns that each program gets (9)")
    parser.add_argument("--steps", type=positive, help="steps in a turn (300)")
    parser.add_argument("--only", choices=CASES, help="one of the networks")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 100 steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there, too")
    parser.add_argument("--without-torch", action="store_true", help="minigan's programs only")
    parser.add_argument("--tuned", action="store_true", help="PyTorch with its easy settings for speed")
    parser.add_argument("--dry-run", action="store_true", help="no GPU, tiny sizes, numbers without meaning")
    for name, kind in (("--worker", str), ("--batch", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--tf32", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    if options.dry_run:
        networks.CHANNELS = DRY_CHANNELS
    if options.worker:
        work(options)
        return
    rounds, steps = (2, 2) if options.dry_run else (3, 100) if options.quick else (9, 300)
    options.rounds, options.steps = options.rounds or rounds, options.steps or steps
    import minigan.testing.strict  # noqa: F401
    from minigan.backend import BackendError, get

    try:
        backend = get(backend_name(options.dry_run))
    except BackendError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    about, can = machine(options.dry_run), rates(backend, options.dry_run)
    if not options.dry_run:
        backend.xp.get_default_memory_pool().free_all_blocks()
    heading(options, about, can)
    rows = []
    for name in [options.only] if options.only else CASES:
        rows += report(name, options, can)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        found = {"options": settings, "machine": about, "rates": can, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def heading(options: argparse.Namespace, about: dict[str, str | None], can: dict[str, float]) -> None:
    if options.dry_run:
        print("DRY RUN: NO GPU, TINY SIZES. THE NUMBERS BELOW MEAN NOTHING.")
    print(", ".join(f"{name} {version}" for name, version in about.items() if version))
    print(
        f"products {can['flop'] / 1e12:.4g} TFLOP/s, in TF32 {can['tf32 flop'] / 1e12:.4g} TFLOP/s; "
        f"copies {can['bytes'] / 1e9:.4g} GB/s"
    )
    tuned = "; PyTorch tuned" if options.tuned else ""
    print(f"{options.rounds} rounds of {options.steps} steps; microseconds a step, peak in MiB{tuned}\n")
    print(f"{COLUMNS}\n{'-' * len(COLUMNS)}", flush=True)


def report(name: str, options: argparse.Namespace, can: dict[str, float]) -> list[dict[str, Any]]:
    """Measure one pair of networks, and print its lines."""
    case, rows = CASES[name], []
    batches = DRY_BATCHES[name] if options.dry_run else case.batches
    for batch, tf32 in itertools.product(batches, (False, True)):
        flop, moved = work_of(case, batch)
        floors = {
            "flop": flop,
            "bytes": moved,
            "arithmetic": flop / can["tf32 flop" if tf32 else "flop"],
            "memory": moved / can["bytes"],
        }
        bars = {pair: bar for pair, bar in case.bars.items() if pair[0] == "captured" or not tf32}
        workers = measured(name, batch, tf32, options)
        by_name = {worker.program: worker for worker in workers}
        for worker in workers:
            row = {
                "case": case.title,
                "batch": batch,
                "tf32": tf32,
                **row_of(worker, by_name, bars),
                **floors,
            }
            rows.append(row)
            print(line_of(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
