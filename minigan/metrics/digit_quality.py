"""How good are generated digits? A distance to real ones, and how often each digit comes.

    floor = digit_floor(train_images, classifier, test_images)       # once
    report = judge_digits(samples, classifier, test_images, floor)   # 10,000 samples
    print(report)

The distance is Fréchet's (frechet.py), between a digit classifier's features of the samples and those
of the test images. It notices digits that are blurred, misshapen or missing. It depends on the classifier, so
it is no FID, and only distances of one classifier and one number of samples can be compared.

What is a good distance? Real training images are not at zero either, for they are not the test images. Their
distance is the floor: a generator that draws as well as MNIST's writers comes close to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .classifier import DigitClassifier
from .frechet import frechet_distance, moments

__all__ = ["DigitReport", "digit_floor", "judge_digits"]


@dataclass(frozen=True)
class DigitReport:
    """What judge_digits found.

    distance: Fréchet distance d² between samples and reference images. shares: how much of the samples the
    classifier takes for a 0, a 1, ... a 9; ten numbers that add up to 1. samples: how many there were.
    floor: d² between real training images, as many, and the reference images; None if it was not given.

    >>> print(DigitReport(12.34, (0.1,) * 8 + (0.2, 0.0), 10000, 1.5))
    Fréchet distance 12.34 of 10000 samples (of as many real images: 1.50)
    digit       0     1     2     3     4     5     6     7     8     9
    share %  10.0  10.0  10.0  10.0  10.0  10.0  10.0  10.0  20.0   0.0
    """

    distance: float
    shares: tuple[float, ...]
    samples: int
    floor: float | None = None

    def __str__(self) -> str:
        floor = "" if self.floor is None else f" (of as many real images: {self.floor:.2f})"
        digits = "".join(f"{digit:6}" for digit in range(len(self.shares)))
        shares = "".join(f"{100 * share:6.1f}" for share in self.shares)
        return (
            f"Fréchet distance {self.distance:.2f} of {self.samples} samples{floor}\n"
            f"digit  {digits}\n"
            f"share %{shares}"
        )


def judge_digits(
    samples: Any, classifier: DigitClassifier, reference_images: Any, floor: float | None = None
) -> DigitReport:
    """Compare samples with reference images, usually 10,000 samples with MNIST's 10,000 test images.

    Shapes: (N, 784), (N, 28, 28) or (N, 1, 28, 28), numbers in [-1, 1] or uint8 pixels. floor: what
    digit_floor gave for as many images; it is only handed on to the report.
    """
    features = classifier.features(samples)
    reference = classifier.features(reference_images)
    distance = frechet_distance(*moments(features), *moments(reference))
    counts = np.bincount(classifier.labels(samples), minlength=10)
    shares = tuple(float(share) for share in counts / len(features))
    return DigitReport(distance, shares, len(features), floor)


def digit_floor(
    train_images: Any, classifier: DigitClassifier, reference_images: Any, samples: int = 10_000
) -> float:
    """The distance of the first so many training images, taken as samples, from the reference images."""
    if not 2 <= samples <= len(train_images):
        raise ValueError(f"digit_floor: samples={samples} of {len(train_images)} training images")
    return judge_digits(train_images[:samples], classifier, reference_images).distance
