"""Data to learn from: MNIST and its relatives, drawn digits, mixtures in the plane, one's own pictures.

    load("auto")            images with labels: MNIST, or drawn digits where there is no network
    scaled(images)          from 0 ... 255 to -1 ... 1
    ring(), grid()          mixtures of normal distributions, with known centres
    Batches(data, ...)      the same data in random batches

There is no Tensor in here, arrays only.
"""

from .batches import Batches
from .drawn_digits import rendered_digits
from .folder import image_folder
from .idx import DataError, read_idx, write_idx
from .images import Images, scaled
from .mixtures import Mixture, SwissRoll, grid, ring, wgan_gp_grid, wgan_gp_ring, wgan_gp_swiss_roll
from .mnist import NotFound, mnist
from .sets import load

__all__ = [
    "Batches", "DataError", "Images", "Mixture", "NotFound", "SwissRoll", "grid", "image_folder", "load",
    "mnist", "read_idx", "rendered_digits", "ring", "scaled", "wgan_gp_grid", "wgan_gp_ring",
    "wgan_gp_swiss_roll", "write_idx",
]  # fmt: skip
