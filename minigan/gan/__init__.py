"""The GAN: losses, penalties, the alternating optimiser, training. Read losses.py first, then steps.py."""

from ..finite import NonFiniteError as NonFiniteError
from .began import BEGAN as BEGAN
from .checkpoint import RunError as RunError
from .consensus import Consensus as Consensus
from .discriminators import *  # noqa: F403
from .divergences import *  # noqa: F403
from .ema import EMA as EMA
from .folder import read_config as read_config
from .gmmn import *  # noqa: F403
from .limits import *  # noqa: F403
from .losses import *  # noqa: F403
from .matching import *  # noqa: F403
from .names import LOSSES as LOSSES
from .names import PENALTIES as PENALTIES
from .names import loss as loss
from .names import penalty as penalty
from .noise import Noise as Noise
from .penalties import *  # noqa: F403
from .progress import Interrupted as Interrupted
from .steps import *  # noqa: F403
from .term import Term as Term
from .trainer import Trainer as Trainer
from .trainer import load_generator as load_generator
from .unrolled import Unrolled as Unrolled
