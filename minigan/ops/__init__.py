"""What one can do to Tensors. Forward and vjp of an op stand side by side in these files.

Read elementwise.py first, then reduce.py and shape.py, linear.py, conv.py, norm.py.
"""

import builtins as _builtins

from ..tensor import Tensor
from . import conv as _conv
from . import elementwise as _elementwise
from . import linear as _linear
from . import norm as _norm
from . import pool as _pool
from . import reduce as _reduce
from . import shape as _shape
from .conv import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .norm import *  # noqa: F403
from .pool import *  # noqa: F403
from .reduce import *  # noqa: F403
from .shape import *  # noqa: F403

# `from minigan.ops import *` leaves Python's own abs, max, min, pow and sum as they are.
__all__ = [
    name
    for file in (_elementwise, _reduce, _shape, _linear, _conv, _norm, _pool)
    for name in file.__all__
    if not hasattr(_builtins, name)
]

# The operators and methods of Tensor, each an op. `-` with the Tensor on the right is the same op.
OPERATORS = {
    "__add__": _elementwise.add,
    "__radd__": lambda a, b: _elementwise.add(b, a),
    "__sub__": _elementwise.sub,
    "__rsub__": lambda a, b: _elementwise.sub(b, a),
    "__mul__": _elementwise.mul,
    "__rmul__": lambda a, b: _elementwise.mul(b, a),
    "__truediv__": _elementwise.div,
    "__rtruediv__": lambda a, b: _elementwise.div(b, a),
    "__pow__": _elementwise.pow,
    "__rpow__": lambda a, b: _elementwise.pow(b, a),
    "__matmul__": _linear.matmul,
    "__rmatmul__": lambda a, b: _linear.matmul(b, a),
    "__neg__": _elementwise.neg,
    "__pos__": _shape.itself,
    "__abs__": _elementwise.abs,
    "__getitem__": _shape.getitem,
    "T": property(_shape.transpose, doc="All axes in reverse order."),
    "mT": property(_shape.matrix_transpose, doc="The last two axes swapped."),
    "reshape": _shape.reshape,
    "transpose": _shape.transpose,
    "astype": _elementwise.astype,
    "copy": _elementwise.copy,
    "sum_to": _shape.sum_to,
    "sum": _reduce.sum,
    "mean": _reduce.mean,
    "var": _reduce.var,
    "max": _reduce.max,
    "min": _reduce.min,
}
for _name, _op in OPERATORS.items():
    setattr(Tensor, _name, _op)
