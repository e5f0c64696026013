"""Pictures of a training run: grids of images, animations, curves, the landscape of D in a plane.

    save_png("samples.png", grid(fakes))              images side by side
    gif("progress.gif", ["epoch-1.png", "epoch-2.png"])
    curves("curves.png", records)                     losses and D's outputs, epoch by epoch
    save_png("plane.png", landscape(real, fake, values, extent=(-3, 3, -3, 3)))

Arrays go in and pictures come out; nothing here knows a Tensor. A picture is an array of bytes: (H, W) is
grey from 0 to 255, (H, W, 3) is red, green, blue. Matplotlib and Pillow are loaded by the functions that
need them, so importing this costs nothing.

images.py has what deals with pixels and files, plots.py what matplotlib draws.
"""

from .images import gif, grid, save_png
from .plots import curves, landscape

__all__ = ["curves", "gif", "grid", "landscape", "save_png"]
