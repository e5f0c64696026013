"""Numbers in words: means with their errors, which of two is smaller, tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["Summary", "ended", "mean_se", "order", "plus_minus", "summary", "table"]

Summary = tuple[float, float, int]  # mean, standard deviation, number


def mean_se(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error: sd / √n, sd with n - 1; the error of a single value is nan.

    >>> mean_se([1.0, 2.0, 3.0])
    (2.0, 0.5773502691896258)
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return float(x.mean()), math.nan
    return float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))


def plus_minus(values: Sequence[float], digits: int = 2) -> str:
    """'mean ± standard error'; the mean alone if there is but one value."""
    mean, error = mean_se(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (with n - 1) and number. Where a trial diverged, its nan makes them nan."""
    x = np.asarray(values, dtype=float)
    spread = float(x.std(ddof=1)) if len(x) > 1 and np.isfinite(x).all() else math.nan
    return float(x.mean()), spread, len(x)


def order(a: Summary, b: Summary) -> str:
    """One of "<", a's mean is clearly smaller than b's; ">", it is clearly larger; "?", one cannot tell.

    Clearly: Welch's t test has p < 0.05, that is, his 95 % interval of the difference leaves out zero.

    >>> order((1.0, 1.0, 5), (4.0, 2.0, 5)), order((3.0, 1.0, 5), (4.0, 2.0, 5))
    ('<', '?')
    """
    with np.errstate(all="ignore"):  # one seed, or one that diverged: p is nan, and one cannot tell
        p = stats.ttest_ind_from_stats(*a, *b, equal_var=False).pvalue
    return "?" if not p < 0.05 else "<" if a[0] < b[0] else ">"


def ended(found: Mapping[str, Any]) -> str:
    """What to say of a trial behind its name: nothing, unless it ended early and says so in "diverged"."""
    return f" (diverged at step {found['diverged']:,})" if "diverged" in found else ""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown.

    >>> print(table(["", "modes"], [["GAN", 6.3]]))
    |  | modes |
    |---|---|
    | GAN | 6.3 |
    """
    lines = [header, *rows]
    text = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(header), *text[1:]])
