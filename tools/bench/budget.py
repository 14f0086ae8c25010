"""Budgets such as "p90_ms<2,drop_pp<0.5", checked against the upper end of each interval."""

import re
from dataclasses import dataclass

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant
from edgedl.tools.bench.result import Candidate

QUANTITIES = ("median_ms", "p90_ms", "p99_ms", "ratio", "drop_pp", "size_kb")


@dataclass(frozen=True)
class Limit:
    """A quantity and the value it must stay below."""

    quantity: str
    below: float


def parse_budget(text: str) -> tuple[Limit, ...]:
    """Read a comma-separated list of limits.

    Raises:
        BadInputError: a part is not ``quantity<number>`` or names no known quantity.

    >>> parse_budget("p90_ms<2")
    (Limit(quantity='p90_ms', below=2.0),)
    """
    limits = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*<=?\s*([0-9.]+(?:e-?\d+)?)\s*", part)
        if match is None:
            raise BadInputError(
                f"budget part '{part.strip()}' is not QUANTITY<NUMBER; "
                f"the quantities are {', '.join(QUANTITIES)}"
            )
        quantity, below = match.groups()
        if quantity not in QUANTITIES:
            raise BadInputError(
                f"a budget has no quantity '{quantity}'{meant(quantity, QUANTITIES)}"
            )
        limits.append(Limit(quantity, float(below)))
    return tuple(limits)


def missed(candidate: Candidate, limits: tuple[Limit, ...]) -> list[str]:
    """Return one sentence per limit that a candidate is not certainly below."""
    latency, speedup = candidate.latency[0], candidate.speedup[0]
    upper: dict[str, float | None] = {
        "median_ms": latency.ci95[1],
        "p90_ms": latency.p90_ms,
        "p99_ms": latency.p99_ms,
        "ratio": speedup.ci95[1],
        "drop_pp": candidate.drop.ci95[1] if candidate.drop.ci95 else None,
        "size_kb": candidate.size_bytes / 1000,
    }
    sentences = []
    for limit in limits:
        value = upper[limit.quantity]
        if value is None and limit.quantity == "drop_pp":
            sentences.append(f"{candidate.name}: drop_pp has too few samples for an interval")
        elif value is None:
            sentences.append(f"{candidate.name}: {limit.quantity} has too few calls to certify")
        elif value >= limit.below:
            sentences.append(
                f"{candidate.name}: {limit.quantity} may be {value:.4g}, "
                f"the budget is {limit.below:g}"
            )
    return sentences
