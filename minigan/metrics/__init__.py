"""How good a generator is, in numbers. Read docs/metrics.md first, then frechet.py and classifier.py."""

from .classifier import *  # noqa: F403
from .digit_quality import *  # noqa: F403
from .frechet import *  # noqa: F403
from .kernel import *  # noqa: F403
from .labels import *  # noqa: F403
from .modes import *  # noqa: F403
from .neighbours import *  # noqa: F403
from .parzen import *  # noqa: F403
from .score import *  # noqa: F403
