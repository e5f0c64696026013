"""A GAN of two small networks learns to draw digits, with nothing but the tape.

    python examples/mnist_mlp_gan.py                       digits drawn from fonts: needs no download
    python examples/mnist_mlp_gan.py --data-dir mnist/     real MNIST: train-images-idx3-ubyte.gz in there

The generator G turns noise z into images. The discriminator D gives an image a number, its logit: high
if D takes the image for a real one. They are trained in turn:

    D minimises  mean softplus(-D(x)) + mean softplus(D(G(z)))     real ones up, fakes down
    G minimises  mean softplus(-D(G(z)))                           fakes up
"""

import argparse
import gzip
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from scipy import ndimage
from tqdm import trange

import minigan as mg
from minigan import Tensor

BATCH, NOISE = 100, 100


def mnist(folder: Path) -> np.ndarray:
    """The 60,000 training images of MNIST, one a row, black -1 and white 1."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784).astype("f4") / 127.5 - 1


def drawn_digits(count: int, rng: np.random.Generator) -> np.ndarray:
    """Digits from matplotlib's own fonts, each turned, sheared, scaled and shifted a little."""
    glyphs = []
    for family in ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral"):
        for digit in "0123456789":
            figure = Figure(figsize=(1, 1), dpi=84)
            figure.text(0.5, 0.5, digit, size=58, family=family, ha="center", va="center_baseline")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            glyphs.append(255.0 - np.asarray(canvas.buffer_rgba())[..., 0])
    images = np.empty((count, 28, 28), "f4")
    for image in images:
        turn, shear, *scale = rng.normal((0, 0, 3, 3), (0.12, 0.2, 0.2, 0.2))
        warp = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn) + shear, np.cos(turn)]]) * scale
        start = 41.5 - warp @ (13.5 + rng.normal(0, 0.8, 2))
        ndimage.affine_transform(glyphs[rng.integers(len(glyphs))], warp, start, (28, 28), image, order=1)
    return ndimage.gaussian_filter(images, (0, 0.6, 0.6)).reshape(count, 784) / 127.5 - 1


def layers(sizes: list[int], rng: np.random.Generator, backend: str) -> list[tuple[Tensor, Tensor]]:
    """A weight (out, in) and a bias (out,) for each layer."""
    return [
        tuple(
            Tensor(rng.uniform(-1, 1, shape).astype("f4") / n_in**0.5, requires_grad=True, backend=backend)
            for shape in ((n_out, n_in), (n_out,))
        )
        for n_in, n_out in pairwise(sizes)
    ]


def generator(weights: list, z: Tensor) -> Tensor:
    for w, b in weights[:-1]:
        z = mg.leaky_relu(mg.batch_norm(mg.linear(z, w, b)), 0.2)
    return mg.tanh(mg.linear(z, *weights[-1]))


def discriminator(weights: list, x: Tensor, rng: np.random.Generator) -> Tensor:
    for w, b in weights[:-1]:
        x = mg.dropout(mg.leaky_relu(mg.linear(x, w, b), 0.2), 0.3, rng)
    return mg.linear(x, *weights[-1])


def noise(rng: np.random.Generator, backend: str) -> Tensor:
    return Tensor(rng.normal(size=(BATCH, NOISE)).astype("f4"), backend=backend)


class Adam:
    """m = β₁ m + (1-β₁) g      v = β₂ v + (1-β₂) g²      w = w - rate · m̂ / (√v̂ + ε)"""

    def __init__(self, weights: list, rate: float = 4e-4, beta1: float = 0.5, beta2: float = 0.999):
        self.leaves = [t for layer in weights for t in layer]
        self.rate, self.beta1, self.beta2, self.steps = rate, beta1, beta2, 0
        self.m, self.v = ([t.data * 0 for t in self.leaves] for _ in range(2))

    def step(self, loss: Tensor) -> None:
        self.steps += 1
        bias1, bias2 = 1 - self.beta1**self.steps, 1 - self.beta2**self.steps
        for t, g, m, v in zip(self.leaves, mg.grad(loss, self.leaves), self.m, self.v, strict=True):
            m += (1 - self.beta1) * (g.data - m)
            v += (1 - self.beta2) * (g.data * g.data - v)
            t.data = t.data - self.rate * (m / bias1) / ((v / bias2) ** 0.5 + 1e-8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["numpy", "cupy"], default="numpy", help="cupy: on a GPU")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of MNIST; without it digits are drawn from fonts"
    )
    parser.add_argument("--epochs", type=int, default=20, help="times through the images (20)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other digits (0)")
    parser.add_argument("--out", type=Path, default=Path("digits.png"), help="the picture (digits.png)")
    options = parser.parse_args()
    try:
        train(options)
    except (OSError, mg.BackendError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def train(options: argparse.Namespace) -> None:
    rng, backend = np.random.default_rng(options.seed), options.backend
    mg.backend.get(backend)  # before the work begins: is it there?
    imsave(options.out, np.zeros((280, 280)), cmap="gray")  # can the picture be written?
    images = mnist(options.data_dir) if options.data_dir else drawn_digits(60_000, rng)
    g_weights = layers([NOISE, 256, 256, 784], rng, backend)
    d_weights = layers([784, 256, 256, 1], rng, backend)
    g_adam, d_adam = Adam(g_weights), Adam(d_weights)
    average = [t.data for t in g_adam.leaves]  # G's weights averaged over some hundred steps draw better
    fixed_z = noise(rng, backend)

    for _ in (bar := trange(options.epochs, disable=None)):
        for rows in rng.permutation(len(images))[: len(images) // BATCH * BATCH].reshape(-1, BATCH):
            fake = generator(g_weights, noise(rng, backend))
            real_logits = discriminator(d_weights, Tensor(images[rows], backend=backend), rng)
            fake_logits = discriminator(d_weights, fake.detach(), rng)  # D's step must not move G
            d_loss = mg.softplus(-real_logits).mean() + mg.softplus(fake_logits).mean()
            d_adam.step(d_loss)
            g_loss = mg.softplus(-discriminator(d_weights, fake, rng)).mean()
            g_adam.step(g_loss)
            average = [0.998 * a + 0.002 * t.data for a, t in zip(average, g_adam.leaves, strict=True)]
        bar.set_description(f"D {float(d_loss):.3f} G {float(g_loss):.3f}")

        with mg.no_grad():
            pairs = zip(average[::2], average[1::2], strict=True)
            drawn = generator([(Tensor(w), Tensor(b)) for w, b in pairs], fixed_z).numpy()
        grid = drawn.reshape(10, 10, 28, 28).swapaxes(1, 2).reshape(280, 280)
        imsave(options.out, grid, cmap="gray", vmin=-1, vmax=1)
    print(f"{options.out}: 100 digits after {options.epochs} epochs")


if __name__ == "__main__":
    main()
