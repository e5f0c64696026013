"""Draw from a run's checkpoint: a grid, a walk through the space of noise, and the nearest training images.

    python examples/sample.py runs/mnist_mlp_gan-1

Three pictures are left in the folder of the run. The last one answers whether G only remembers: each row has
one of its images, and beside it the training images that are nearest to it, pixel by pixel.
"""

import argparse
import importlib
from pathlib import Path

import numpy as np

from minigan import Tensor, no_grad, viz
from minigan.data import load, scaled
from minigan.gan import Noise, RunError, command, load_generator, read_config
from minigan.streams import stream

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("run", type=Path, help="the folder of a run of one of the examples")
parser.add_argument("--count", type=command.positive, default=100, help="images in the grid (100)")
parser.add_argument("--seed", type=command.natural, default=0, help="another seed, other images (0)")
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
    if not (Path(__file__).parent / f"{config['options'].get('program')}.py").is_file():
        raise RunError(f"{options.run}: is no run of one of these examples")
    begun = argparse.Namespace(**config["options"])
    if "dataset" not in begun:
        raise RunError(f"{options.run}: is no run with images; look at the pictures in {options.run}/samples")
    example = importlib.import_module(begun.program)
    g = load_generator(options.run, example.networks(begun)[0])

    def draw(z: np.ndarray) -> np.ndarray:
        with no_grad():
            return g(Tensor(z, dtype="float32")).numpy().reshape(len(z), -1)

    settings, rng = config["settings"], stream(options.seed, "sample")
    size = settings["noise"]
    z = Noise(size, options.count, options.seed, settings["noise_kind"], purpose="sample").at(0).numpy()
    grid = draw(z)
    walks = np.concatenate([interpolated(a, b, 12) for a, b in rng.standard_normal((8, 2, size))])
    images = load(begun.dataset, options.data_dir or begun.data_dir, say=lambda line: None).images
    known = scaled(images).reshape(len(images), -1)
    twins = np.concatenate([grid[:10, None], nearest(grid[:10], known, 7)], axis=1).reshape(
        -1, known.shape[1]
    )
    for name, picture in {
        "grid": viz.grid(grid),
        "interpolation": viz.grid(draw(walks), columns=12),
        "nearest": viz.grid(twins, columns=8),
    }.items():
        path = options.run / f"{name}.png"
        viz.save_png(path, picture)
        print(path)


if __name__ == "__main__":
    command.run(main, parser)
