"""How good are the digits of finished runs? `python benchmarks/digits.py runs/mnist_mlp_gan-1 ...`

For each run of one of the examples: how long it trained, the Fréchet distance of 10,000 samples from the test
images (minigan/metrics/digits.py), and how often each digit comes. Give --data-dir if MNIST has moved.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np

from minigan import Tensor, no_grad
from minigan.data import load
from minigan.metrics import digit_classifier, digit_floor, judge_digits
from minigan.streams import stream
from minigan.training import load_generator, read_config

SAMPLES, AT_ONCE = 10_000, 500


def samples_of(run: Path, config: dict, seed: int) -> np.ndarray:
    """10,000 images from the run's generator."""
    options = argparse.Namespace(**config["options"])
    example = importlib.import_module(options.program)
    g = load_generator(run, example.networks(options)[0])
    z = stream(seed, "judged").standard_normal((SAMPLES, config["settings"]["noise"]), dtype="float32")
    with no_grad():
        parts = [g(Tensor(z[i : i + AT_ONCE])).numpy() for i in range(0, SAMPLES, AT_ONCE)]
    return np.concatenate(parts).reshape(SAMPLES, 784)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path, help="folder with the files of MNIST")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the classifier (0)")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    for run in options.runs:
        config = read_config(run)
        begun = config["options"]
        images = load(begun["dataset"], options.data_dir or begun["data_dir"])
        classifier = digit_classifier(images, seed=options.seed)
        floor = digit_floor(images.images, classifier, images.test_images)
        report = judge_digits(samples_of(run, config, options.seed), classifier, images.test_images, floor)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        print(f"\n{run}: recipe {begun.get('recipe')}, {lines[-1]}\n{report}", flush=True)


if __name__ == "__main__":
    main()
