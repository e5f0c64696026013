"""minigan: generative adversarial networks in plain NumPy, or CuPy on a GPU.

Start reading in tensor.py. The ops are functions here, too: `minigan.exp`, `minigan.conv2d` ...
"""

# "X as X" tells type checkers that X is public here.
from . import backend as backend
from . import io as io
from . import nn as nn
from . import ops as ops
from . import optim as optim
from .draw import draw as draw
from .draw import trace as trace
from .errors import BackendError as BackendError
from .gradcheck import GradientError as GradientError
from .gradcheck import Kink as Kink
from .gradcheck import adjoint_check as adjoint_check
from .gradcheck import gradcheck as gradcheck
from .ops.conv import *  # noqa: F403
from .ops.elementwise import *  # noqa: F403
from .ops.linear import *  # noqa: F403
from .ops.norm import *  # noqa: F403
from .ops.pool import *  # noqa: F403
from .ops.reduce import *  # noqa: F403
from .ops.shape import *  # noqa: F403
from .process import performance as performance
from .tensor import Tensor as Tensor
from .tensor import grad as grad
from .tensor import no_grad as no_grad
from .tensor import record as record
from .version import __version__ as __version__

__all__ = [
    "BackendError", "GradientError", "Kink", "Tensor", "adjoint_check", "backend", "draw", "grad",
    "gradcheck", "io", "nn", "no_grad", "ops", "optim", "performance", "record", "trace", *ops.__all__,
]  # fmt: skip
