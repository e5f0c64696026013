"""The mathematics of the game. Read losses.py first, then steps.py.

What a run needs besides is in minigan.training.
"""

from ..finite import NonFiniteError as NonFiniteError
from .began import BEGAN as BEGAN
from .by_name import *  # noqa: F403
from .consensus import Consensus as Consensus
from .discriminator_wrappers import *  # noqa: F403
from .divergences import *  # noqa: F403
from .feature_matching import *  # noqa: F403
from .gmmn import *  # noqa: F403
from .losses import *  # noqa: F403
from .penalties import *  # noqa: F403
from .relativistic import *  # noqa: F403
from .steps import *  # noqa: F403
from .term import Term as Term
from .unrolled import Unrolled as Unrolled
from .weight_limits import *  # noqa: F403
