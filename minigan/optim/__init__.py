"""Optimisers: from gradients to better parameters. The rules are in functional.py, who applies them in optimizers.py."""

from . import functional as functional
from . import schedules as schedules
from .clipping import *  # noqa: F403
from .optimizers import *  # noqa: F403
