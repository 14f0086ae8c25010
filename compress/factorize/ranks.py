"""At which rank each layer is split: by the energy it keeps, or by the arithmetic to save."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from edgedl.compress.factorize.split_layers import can_split
from edgedl.compress.factorize.two_factors import TwoFactors, largest_saving_rank
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.sizes import places_of
from edgedl.compress.graph.stored_weights import stored_weights
from edgedl.runtime.errors import BadInputError

# Path of a weight -> the rank it is split at.
Ranks = Mapping[str, int]


@dataclass(frozen=True)
class Candidate:
    """A weight whose layers could be split.

    Attributes:
        path: where it is stored.
        factors: its decomposition.
        largest: the largest rank that saves arithmetic.
        places: positions of all the outputs that it makes of one sample.
    """

    path: str
    factors: TwoFactors
    largest: int
    places: int

    def saved(self, rank: int) -> int:
        """Return the multiply-accumulates of one sample that a rank saves."""
        outputs, inputs = len(self.factors.outputs), self.factors.inputs.shape[1]
        return self.places * (outputs * inputs - rank * (outputs + inputs))


def find_candidates(graph: fx.GraphModule, keep: Sequence[str] = ()) -> list[Candidate]:
    """Return the weights of a traced graph at which a rank of 1 saves arithmetic.

    Raises:
        BadInputError: a name in ``keep`` matches no layer.
    """
    found = []
    for weight in stored_weights(graph, keep):
        largest = largest_saving_rank(weight.value.shape)
        if largest and can_split(weight):
            places = sum(places_of(node, row_of(node).channel_axis) for node in weight.readers)
            found.append(Candidate(weight.path, TwoFactors.of(weight.value), largest, places))
    return found


def ranks_at_energy(candidates: Sequence[Candidate], energy: float, multiple: int) -> Ranks:
    """Return the ranks at which every layer keeps an energy; of those that then save arithmetic.

    Args:
        candidates: of the network.
        energy: share of the squared singular values of each.
        multiple: a rank is the next multiple of this.
    """
    ranks = {}
    for candidate in candidates:
        rank = math.ceil(candidate.factors.rank(energy) / multiple) * multiple
        if rank <= candidate.largest:
            ranks[candidate.path] = rank
    return ranks


def energy_levels(candidates: Sequence[Candidate]) -> list[float]:
    """Return the energies at which some rank changes, ascending; a higher one never saves more."""
    return sorted({c.factors.energy(r) for c in candidates for r in range(1, c.largest + 1)})


def ranks_for_ratio(
    candidates: Sequence[Candidate], ratio: float, macs: int, multiple: int
) -> Ranks:
    """Return the ranks of the highest energy, the same for every layer, that saves enough.

    Args:
        candidates: of the network.
        ratio: share of ``macs`` to save.
        macs: multiply-accumulates of one sample in the whole network.
        multiple: as for ``ranks_at_energy``.

    Raises:
        BadInputError: no energy saves enough.
    """

    def saved(ranks: Ranks) -> int:
        return sum(c.saved(ranks[c.path]) for c in candidates if c.path in ranks)

    levels = energy_levels(candidates)
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        enough = saved(ranks_at_energy(candidates, levels[middle], multiple)) >= ratio * macs
        low, high = (middle + 1, high) if enough else (low, middle)
    if low == 0:
        most = saved(ranks_at_energy(candidates, levels[0], multiple)) / macs if levels else 0.0
        raise BadInputError(
            f"splitting layers removes at most {most:.3f} of the multiply-accumulates at ranks in "
            f"multiples of {multiple}, the ratio is {ratio}: lower either"
        )
    return ranks_at_energy(candidates, levels[low - 1], multiple)
