"""How good a generator is, in numbers. Read docs/metrics.md first, then frechet.py and classifier.py."""

from .classifier import DigitClassifier as DigitClassifier
from .classifier import digit_classifier as digit_classifier
from .digit_quality import DigitReport as DigitReport
from .digit_quality import digit_floor as digit_floor
from .digit_quality import judge_digits as judge_digits
from .frechet import frechet_distance as frechet_distance
from .frechet import moments as moments
from .kernel import KernelReport as KernelReport
from .kernel import kernel_distance as kernel_distance
from .kernel import squared_mmd as squared_mmd
from .labels import StackedReport as StackedReport
from .labels import class_shares as class_shares
from .labels import judge_stacked as judge_stacked
from .modes import ModeReport as ModeReport
from .modes import grid_js as grid_js
from .modes import grid_kl as grid_kl
from .modes import judge_modes as judge_modes
from .modes import reverse_kl as reverse_kl
from .neighbours import NeighbourReport as NeighbourReport
from .neighbours import judge_neighbours as judge_neighbours
from .parzen import ParzenReport as ParzenReport
from .parzen import judge_parzen as judge_parzen
from .parzen import parzen_log_likelihood as parzen_log_likelihood
from .score import class_score as class_score
