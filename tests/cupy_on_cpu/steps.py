"""What a training step asks of a GPU: launches, copies, waits; and which lines ask.

    tests/cupy_on_cpu/run python tests/cupy_on_cpu/steps.py [mlp|dcgan] [--lines]

For the networks of benchmarks/networks.py: three eager and three recorded steps, and whether both lead to the
same weights, bit for bit. --lines: which lines of minigan launch how much in an eager step.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks"), str(HERE.parent)]

import networks  # noqa: E402
from cupy_on_cpu import fake_gpu  # noqa: E402

from minigan import backend, nn  # noqa: E402
from minigan.gan import Game, NonSaturating  # noqa: E402
from minigan.optim import Adam  # noqa: E402
from minigan.training import Trainer  # noqa: E402

PACKAGE = str(HERE.parents[1] / "minigan") + "/"
SHAPES = {"mlp": (784,), "dcgan": (1, 28, 28)}


def trainer(kind, where="cupy", **settings):
    """A Trainer that has done four steps, and has whole epochs of four steps before it."""
    rng = np.random.default_rng(0)
    g, d = networks.mlp(nn, (256, 256), rng=rng) if kind == "mlp" else networks.dcgan(nn, rng=rng)
    data = np.random.default_rng(0).random((80, *SHAPES[kind]), dtype="float32") * 2 - 1
    adams = [Adam(network.to(where).parameters(), *networks.ADAM) for network in (g, d)]
    game = Game(g, d, NonSaturating(), *adams)
    run = Trainer(game, data, noise=networks.Z, ema=0, batch=20, quiet=True, **settings)
    run.run(steps=4)
    run.train_step()  # the first step of an epoch fetches its order, and a recording is made
    return run


def weights(run):
    """Those of both networks, in NumPy."""
    return [np.array(p) for network in (run.play.game.g, run.play.game.d) for p in arrays_of(network)]


def arrays_of(network):
    return [backend.to_numpy(tensor.data) for tensor in network.state_dict().values()]


def launches_by_lines(run):
    """How many launches each line of minigan asks for in a step, with the lines that called it."""
    where, lines, before = Counter(), {}, 0

    def local(frame, event, arg):
        nonlocal before
        now = fake_gpu.launches()
        if now != before:
            at, stack = frame, []
            while at is not None and len(stack) < 4:
                name = at.f_code.co_filename
                if name.startswith(PACKAGE):
                    stack.append(f"{name[len(PACKAGE) :]}:{lines.get(id(at), at.f_lineno)}")
                at = at.f_back
            where[" < ".join(stack)] += now - before
            before = now
        if event == "return":
            lines.pop(id(frame), None)
        else:
            lines[id(frame)] = frame.f_lineno
        return local

    def begin(frame, event, arg):
        return local(frame, event, arg) if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = fake_gpu.launches()
    sys.settrace(begin)
    try:
        run.train_step()
    finally:
        sys.settrace(None)
    return where


def main():
    parser = argparse.ArgumentParser(prog="steps.py", description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*SHAPES, []], default=[])
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    for kind in options.kinds or SHAPES:
        found = []
        for how in ("eager", "recorded"):
            run = trainer(kind, capture=how == "recorded")
            for _ in range(3):
                with fake_gpu.counting() as counts:
                    run.train_step()
                asked = {kind: names.total() for kind, names in counts.asked.items()}
                print(f"{kind} {how:8} {counts.launches:3} launches: {asked}")
            found.append(weights(run))
        same = all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
        print(f"{kind} recorded and eager weights are {'the same' if same else 'NOT the same'}")
        if options.lines:
            for line, count in sorted(launches_by_lines(trainer(kind)).items()):
                print(f"    {count:3}  {line}")


if __name__ == "__main__":
    main()
