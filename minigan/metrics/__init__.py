"""How good a generator is, in numbers. Read frechet.py first, then classifier.py and digits.py."""

from .classifier import DigitClassifier as DigitClassifier
from .classifier import digit_classifier as digit_classifier
from .digits import DigitReport as DigitReport
from .digits import digit_floor as digit_floor
from .digits import judge_digits as judge_digits
from .frechet import frechet_distance as frechet_distance
from .frechet import moments as moments
