"""The stage that splits layers in two, by low rank."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from edgedl.compress.factorize.ranks import (
    Candidate,
    Ranks,
    find_candidates,
    ranks_at_energy,
    ranks_for_ratio,
)
from edgedl.compress.factorize.split_layers import split_layers
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.prune.tensor_axes import TensorAxes
from edgedl.compress.prune.widths import MacCounter
from edgedl.compress.stage import ModelState, refuse_after, trainable_graph
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.manifest import HistoryEntry

ENERGY = 0.9


class Factorize(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="stage",
    tag="factorize",
):
    """Low rank: a linear layer or convolution becomes two, where both together multiply less.

    The first keeps the kernel and has fewer outputs, the second is a linear layer or a 1x1
    convolution. Fewer multiplications are more operators: whether it is faster is measured. The
    network should be fine-tuned afterwards. Grouped and depthwise convolutions stay.

    Attributes:
        energy: share of the sum of squared singular values that every split layer keeps; null is
            0.9, unless ``ratio`` is given.
        ratio: share of the network's multiply-accumulates to remove; every layer then keeps the
            same energy, the most that reaches it.
        keep: layers that stay whole: module paths, with all that is inside, or wildcards.
        multiple: a rank is the next multiple of this, as far as it saves arithmetic; 8 float32
            fill a register of AVX2, two of NEON.
    """

    energy: Annotated[float, Meta(gt=0, le=1)] | None = None
    ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    keep: tuple[str, ...] = ()
    multiple: Annotated[int, Meta(ge=1)] = 8

    def __post_init__(self) -> None:
        """Refuse two wishes at once.

        Raises:
            BadInputError: there are both an energy and a ratio.
        """
        if self.energy is not None and self.ratio is not None:
            raise BadInputError("factorize takes an energy or a ratio, not both: leave one out")

    def apply(self, state: ModelState) -> ModelState:
        """Return the state of the split network; its history says the rank of each layer.

        Raises:
            BadInputError: the network is quantized or sparse already, a name in ``keep`` matches no
                layer, no layer is worth splitting, or the ratio cannot be reached.
        """
        subject = state.subject
        refuse_after(state, "factorize", "sparsify", "the pattern of the zeros")
        graph = trainable_graph(state, "factorize")
        before = MacCounter(TensorAxes(graph)).count({})
        candidates = find_candidates(graph, self.keep)
        ranks = self._ranks(candidates, before)
        split_layers(graph, ranks)
        network = TracedNetwork(graph)
        settings = {
            **msgspec.structs.asdict(self),
            "ranks": tuple(f"{path}={rank}" for path, rank in ranks.items()),
            "kept_energy": tuple(
                f"{c.path}={c.factors.energy(ranks[c.path]):.4g}"
                for c in candidates
                if c.path in ranks
            ),
            "macs_before": before,
            "macs_after": MacCounter(TensorAxes(graph)).count({}),
        }
        return replace(
            state,
            subject=replace(subject, module=network),
            graph=trace(network, subject.example_inputs(), subject.free_axes),
            parent=state.parent or subject.module,
            history=(*state.history, HistoryEntry("factorize", settings)),
        )

    def _ranks(self, candidates: Sequence[Candidate], macs: int) -> Ranks:
        if self.ratio is not None:
            return ranks_for_ratio(candidates, self.ratio, macs, self.multiple)
        energy = ENERGY if self.energy is None else self.energy
        ranks = ranks_at_energy(candidates, energy, self.multiple)
        if not ranks:
            raise BadInputError(
                f"no layer can be split in two that multiply less at an energy of {energy} and "
                f"ranks in multiples of {self.multiple}: lower either"
            )
        return ranks
