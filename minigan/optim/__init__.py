"""Optimisers: from gradients to better parameters. Read optimizers.py first, then kernels/optim.py."""

from . import functional as functional
from . import schedules as schedules
from .clipping import *  # noqa: F403
from .optimizers import *  # noqa: F403
