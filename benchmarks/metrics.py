"""How long the scores of minigan.metrics take, and how much memory: `python benchmarks/metrics.py`

Each line is a score as it is usually computed, of 10,000 images or 2,500 points in the plane. The time is the
median over the rounds. The memory is the largest amount that NumPy's arrays took at once, without the vectors
that are judged; it is measured in a run of its own. On two cores half a second is acceptable for Fréchet's
distance, 20 seconds and 1000 MB for the neighbours.

The matrix products use as many threads as the BLAS likes. Where other programs are busy on the same cores,
OPENBLAS_NUM_THREADS=1 can be several times as fast.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import turns

from minigan.data.mixtures import grid
from minigan.metrics import (
    class_score,
    frechet_distance,
    judge_modes,
    judge_neighbours,
    kernel_distance,
    moments,
    parzen_log_likelihood,
)
from minigan.streams import stream

MANY = 10_000
Judge = Callable[[], object]


def features(size: int) -> tuple[np.ndarray, np.ndarray]:
    """What a classifier might see in two sets of images: numbers not below 0, float32."""
    rng = stream(0, "benchmark: features", size)
    mix = rng.standard_normal((size, size), dtype="float32") / size**0.5
    x, y = rng.standard_normal((2, MANY, size), dtype="float32")
    return np.maximum(x @ mix, 0), np.maximum(y @ mix + 0.1, 0)


def frechet() -> Judge:
    x, y = features(128)
    return lambda: frechet_distance(*moments(x), *moments(y))


def neighbours(size: int) -> Judge:
    x, y = features(size)
    return lambda: judge_neighbours(x, y)


def kernel() -> Judge:
    x, y = features(128)
    return lambda: kernel_distance(x, y)


def score() -> Judge:
    p = stream(0, "benchmark: probabilities").dirichlet(np.full(10, 0.1), MANY)
    return lambda: class_score(p)


def parzen() -> Judge:
    samples, points = stream(0, "benchmark: images").random((2, MANY, 784), dtype="float32")
    return lambda: parzen_log_likelihood(samples, points, sigma=0.2)


def modes() -> Judge:
    mixture = grid()
    samples = mixture.sample(2500, stream(0, "benchmark: points"))
    return lambda: judge_modes(samples, mixture)


# Each makes the vectors, and gives the function that judges them.
CASES: dict[str, Callable[[], Judge]] = {
    "modes, 2,500 points, 25 centres": modes,
    "class score, 10,000 x 10 classes": score,
    "Fréchet distance, 10,000 x 128": frechet,
    "kernel distance, 10,000 x 128": kernel,
    "neighbours, 10,000 x 64": lambda: neighbours(64),
    "neighbours, 10,000 x 128": lambda: neighbours(128),
    "Parzen windows, 10,000 x 784": parzen,
}


def seconds(judge: Judge) -> float:
    start = time.perf_counter()
    judge()
    return time.perf_counter() - start


def megabytes(judge: Judge) -> float:
    """The peak of what was allocated while it ran: NumPy tells tracemalloc of its arrays."""
    tracemalloc.start()
    judge()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each score is timed (3)")
    options = parser.parse_args()
    print(turns.versions())
    head = f"{'':34}{'seconds':>10}{'megabytes':>12}"
    print(head + "\n" + "-" * len(head))
    for title, prepare in CASES.items():
        judge = prepare()
        judge()  # once before: the first call also loads code
        median = statistics.median(seconds(judge) for _ in range(options.rounds))
        print(f"{title:34}{median:10.3f}{megabytes(judge):12.1f}", flush=True)


if __name__ == "__main__":
    main()
