"""Data to learn from: MNIST and its relatives, drawn digits, mixtures in the plane, one's own pictures.

    load("auto")            images with labels: MNIST, or drawn digits where there is no network
    scaled(images)          from 0 ... 255 to -1 ... 1
    ring(), grid()          mixtures of normal distributions, with known centres
    Batches(data, ...)      the same data in random batches

There is no Tensor in here, arrays only.
"""

from .batches import *  # noqa: F403
from .drawn_digits import *  # noqa: F403
from .folder import *  # noqa: F403
from .idx import *  # noqa: F403
from .images import *  # noqa: F403
from .mixtures import *  # noqa: F403
from .mnist import *  # noqa: F403
from .sets import *  # noqa: F403
