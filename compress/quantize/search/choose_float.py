"""Choose the layers that stay float: least latency for the noise that may remain."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the damage that ends once some layers are float.

    Attributes:
        amounts: how much it adds, by each way of counting (noise power, task loss, ...).
        needs: the layers that must all be float for it to end.
    """

    amounts: tuple[float, ...]
    needs: frozenset[str]


@dataclass(frozen=True)
class Choice:
    """Layers to keep in float, with what is expected of them.

    Attributes:
        kept: their names.
        cost: latency added, as a share of the all-int8 file's.
        remaining: damage that stays, by each way of counting.
        excess: by how much of the whole damage the worst of them is over its limit; 0 if none is.
    """

    kept: frozenset[str]
    cost: float
    remaining: tuple[float, ...]
    excess: float


def find_candidates(parts: Sequence[Part], count: int, max_layers: int) -> list[str]:
    """Return the layers worth a price: those that end the largest parts.

    Parts are taken in the order of their first amount, as long as the layers they need fit.
    """
    found: dict[str, None] = {}
    for part in sorted(parts, key=lambda p: -p.amounts[0]):
        together = {**found, **dict.fromkeys(sorted(part.needs))}
        if part.needs and len(part.needs) <= max_layers and len(together) <= count:
            found = together
    return list(found)


def rank_choices(
    parts: Sequence[Part],
    costs: Mapping[str, float],
    limits: Sequence[float],
    max_cost: float,
    max_layers: int,
) -> list[Choice]:
    """Return every affordable set of layers, the best first.

    Those within the limits come first, by cost; then the others, by how far they are over. Parts
    and costs are taken to add up. A layer that can be left out of a set makes the set no better.

    Args:
        parts: the damage of the all-int8 network, taken apart.
        costs: the layers that may stay float, with the share of latency each adds.
        limits: largest damage allowed, by each way of counting.
        max_cost: largest sum of costs.
        max_layers: largest set.
    """
    totals = [sum(part.amounts[i] for part in parts) for i in range(len(limits))]
    choices = []
    for size in range(min(max_layers, len(costs)) + 1):
        for kept in map(frozenset, itertools.combinations(costs, size)):
            cost = sum(costs[name] for name in sorted(kept))
            if cost > max_cost:
                continue
            left = [part for part in parts if not part.needs <= kept]
            remaining = tuple(sum(p.amounts[i] for p in left) for i in range(len(limits)))
            choices.append(Choice(kept, cost, remaining, excess(remaining, limits, totals)))
    return sorted(choices, key=lambda c: (c.excess, c.cost, len(c.kept), sorted(c.kept)))


def excess(remaining: Sequence[float], limits: Sequence[float], totals: Sequence[float]) -> float:
    """Return the largest share of the whole damage by which a limit is passed.

    >>> excess([3.0, 1.0], [2.0, 5.0], [10.0, 10.0])
    0.1
    """
    over = [
        (amount - limit) / total
        for amount, limit, total in zip(remaining, limits, totals, strict=True)
        if total > 0
    ]
    return max(0.0, *over) if over else 0.0
