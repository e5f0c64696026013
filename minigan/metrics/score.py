"""Is each sample surely of one class, and are all classes there? One number from a classifier.

    score = exp( mean over samples of KL(p(k|x) || p(k)) )        p(k) = mean over samples of p(k|x)

p(k|x) is the classifier's probability that the sample x is of class k. The score is large if p(k|x) is sharp,
differently for different x. It is 1 if all samples look the same to the classifier, and K, the number of
classes, if it is sure of each and all classes are equally common. With the classifier Inception it is the
score of that name (Salimans et al. 2016); with another one it is another score. It never looks at real
images: one perfect image for each class would have the best score that there is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, backend_of, xp_of
from ..streams import stream
from .checks import features

__all__ = ["class_score"]

OFF = 1e-3  # how far from 1 probabilities may add up: those in half precision do


def class_score(probabilities: Any, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """exp(mean KL(p(k|x) || p(k))) of each of `splits` parts: the mean, and the standard deviation.

    Shapes: probabilities (N, K), after the softmax: rows of numbers from 0 to 1 that add up to 1. Rows are
    shuffled (with `seed`) and cut into parts, each with a p(k) of its own, two rows at least in each. Few
    rows have a lower score, so compare only scores of equally large parts: 10 of 5000 is usual.
    The deviation is that between parts (over splits - 1), not the error of the mean, which is less by a
    factor √splits. It is NaN for splits=1.

    >>> class_score(np.eye(4)[[0, 1, 2, 3]], splits=1)[0]
    4.0
    """
    if splits < 1:
        raise ValueError(f"class_score: splits={splits}; it must be 1 or more")
    p = features("class_score", "probabilities", probabilities, least=2 * splits)
    low, high = float(p.min()), float(abs(p.sum(axis=1) - 1).max())
    if low < 0 or high > OFF:
        raise ValueError(
            f"class_score: rows with numbers down to {low:.3g} and sums up to {high:.3g} away from 1 are no "
            "probabilities; give what comes out of a softmax, not the logits"
        )
    order = stream(seed, "class score: splits").permutation(len(p))
    parts = [p[backend_of(p).from_numpy(rows)] for rows in np.array_split(order, splits)]
    scores = [_score(part.astype(np.float64)) for part in parts]
    return float(np.mean(scores)), float(np.std(scores, ddof=1)) if splits > 1 else float("nan")


def _score(p: Array) -> float:
    xp = xp_of(p)
    average = p.mean(axis=0)
    # 0 ln 0 = 0: where p is 0 the logarithm of anything else will do
    ratio = xp.where(p > 0, p, 1) / xp.where(p > 0, average, 1)
    return float(np.exp(float((p * xp.log(ratio)).sum(axis=1).mean())))
