"""Layers: functions that own their weights. Read module.py first, then linear.py and conv.py."""

from . import init as init
from .containers import *  # noqa: F403
from .conv import *  # noqa: F403
from .linear import *  # noqa: F403
from .module import Module as Module
from .module import frozen as frozen
