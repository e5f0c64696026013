"""Draw from a run's checkpoint: a grid, a walk through the space of noise, and the nearest training images.

    python examples/sample.py runs/mnist_mlp_gan-1

Three pictures are left in the folder of the run. The last one answers whether G only remembers: each row has
one of its images, and beside it the training images that are nearest to it, pixel by pixel.
"""

import argparse
import importlib
import zlib
from pathlib import Path

import numpy as np

from minigan import Tensor, no_grad, viz
from minigan.data import load, scaled
from minigan.streams import stream
from minigan.training import Draws, RunError, command_line, load_generator, read_config

PROGRAMS = ("mnist_mlp_gan", "mnist_dcgan")

parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
parser.add_argument("run", type=Path, help="the folder of a run of one of the examples")
parser.add_argument("--count", type=command_line.positive_int, default=100, help="images in the grid (100)")
parser.add_argument(
    "--seed", type=command_line.nonnegative_int, default=0, help="another one, other images (0)"
)
parser.add_argument("--data-dir", type=Path, help="folder with the files of MNIST, if they have moved")


def interpolated(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """From a to b along a great circle, (steps, F): straight lines lead through noise that G never sees."""
    angle = np.arccos(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))
    t = np.linspace(0, 1, steps)[:, None]
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def nearest(images: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """For each image the `count` others at the smallest distance |x - y|², (N, count, F)."""
    distance = (others * others).sum(axis=1) - 2 * images @ others.T  # and + |x|², which changes no order
    return others[np.argsort(distance, axis=1)[:, :count]]


def main(options: argparse.Namespace) -> None:
    """Make the three pictures."""
    config = read_config(options.run)
    begun = argparse.Namespace(**config.get("options", {}))
    if getattr(begun, "program", None) not in PROGRAMS:
        raise RunError(f"{options.run}: is no run of {' or '.join(PROGRAMS)}")
    g = load_generator(options.run, importlib.import_module(begun.program).networks(begun)[0])
    settings = config["settings"]
    size = settings["noise"]

    def draw(z: np.ndarray) -> np.ndarray:
        with no_grad():
            return g(Tensor(z, dtype="float32")).numpy().reshape(len(z), -1)

    def save(name: str, images: np.ndarray, columns: int | None = None) -> None:
        path = options.run / f"{name}.png"
        viz.save_png(path, viz.grid(images, columns))
        print(path)

    z = Draws(options.seed).noise((options.count, size), settings["noise_kind"], purpose="sample")
    drawn = draw(z.numpy())
    save("grid", drawn)
    ends = stream(options.seed, "walks").standard_normal((8, 2, size))
    save("interpolation", draw(np.concatenate([interpolated(a, b, 12) for a, b in ends])), 12)

    images = load(begun.dataset, options.data_dir or begun.data_dir, log=lambda line: None).images
    known = scaled(images).reshape(len(images), -1)
    if zlib.crc32(known.data) != config["data"]["images"]["crc32"]:
        raise RunError(f"{options.run}: was trained on other images than these; where are they? --data-dir")
    twins = np.concatenate([drawn[:10, None], nearest(drawn[:10], known, 7)], axis=1)
    save("nearest", twins.reshape(-1, known.shape[1]), twins.shape[1])


if __name__ == "__main__":
    command_line.run(main, parser)
