"""Layers: functions that own their weights. Read module.py first, then linear.py and conv.py."""

from . import init as init
from .activations import *  # noqa: F403
from .attention import *  # noqa: F403
from .batchnorm import *  # noqa: F403
from .containers import *  # noqa: F403
from .conv import *  # noqa: F403
from .linear import *  # noqa: F403
from .minibatch import *  # noqa: F403
from .module import Layer as Layer
from .module import Module as Module
from .module import frozen as frozen
from .norm import *  # noqa: F403
from .shape import *  # noqa: F403
from .substitute import *  # noqa: F403
from .summary import *  # noqa: F403
from .weights import *  # noqa: F403
