"""A number with its interval, and the distributions that intervals are made of."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its two-sided interval, of 95 % where nothing else is said."""

    value: float
    lo: float
    hi: float


def normal_quantile(confidence: float) -> float:
    """Return how many standard deviations a two-sided interval of that confidence reaches.

    >>> round(normal_quantile(0.95), 3)
    1.96
    """
    return NormalDist().inv_cdf((1 + confidence) / 2)


def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return how many standard errors a two-sided interval reaches whose spread is estimated.

    Args:
        freedom: degrees of it, one less than there are values; infinity where it is 0.
        confidence: of the interval.

    >>> round(student_quantile(9), 3)
    2.262
    """
    if freedom < 1:
        return math.inf
    few, many = 0.0, 1.0
    while _student_inside(many, freedom) < confidence:
        few, many = many, 2 * many
    while many - few > 1e-12 * many:
        middle = (few + many) / 2
        inside = _student_inside(middle, freedom) < confidence
        few, many = (middle, many) if inside else (few, middle)
    return many


def _student_inside(t: float, freedom: int) -> float:
    """Return P(|T| <= t), as a finite sum.

    Source: Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def binomial_cdf(most: int, count: int, probability: float) -> float:
    """Return the probability of at most so many of ``count``, summed in logs.

    >>> round(binomial_cdf(1, 10, 0.5), 4)
    0.0107
    """
    p = probability
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(p) + (count - k) * math.log1p(-p)
        for k in range(most + 1)
    ]  # fmt: skip
    top = max(logs)
    return math.exp(top) * math.fsum(math.exp(value - top) for value in logs)
