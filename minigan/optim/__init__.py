"""Optimisers: from gradients to parameters. The rules are in functional.py; optimizers.py applies them."""

from . import functional as functional
from . import schedules as schedules
from .clipping import *  # noqa: F403
from .optimizers import *  # noqa: F403
