"""What a run needs besides mathematics. Read trainer.py first."""

from ..finite import NonFiniteError as NonFiniteError
from .checkpoint import RunError as RunError
from .draws import Draws as Draws
from .ema import EMA as EMA
from .play import Play as Play
from .progress import Interrupted as Interrupted
from .run_folder import read_config as read_config
from .trainer import *  # noqa: F403
