"""The stage that removes whole residual blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import fx

from edgedl.compress.estimate import Estimated
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.file_timer import (
    FileTimer,
    TimedPrecision,
    first_fast_enough,
    milder_speedup,
)
from edgedl.compress.latency.timing import Runtime, this_machine
from edgedl.compress.prune.block_importance import (
    BlockImportance,
    BlockJudge,
    calibration_batches,
    removal_order,
)
from edgedl.compress.prune.find_blocks import Block, find_blocks, remove_blocks
from edgedl.compress.stage import Found, Stage, recorded_lines, refuse_together
from edgedl.compress.state import ZEROS, ModelState, Phase, Trait
from edgedl.compress.targets.target import load_target
from edgedl.compress.training.losses import is_classification
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.precision import precision_named
from edgedl.runtime.wording import meant

# How many go where nothing is said.
BLOCKS = 1


@dataclass(frozen=True)
class _Choice:
    """Blocks that go, and what was measured to choose them."""

    removed: list[Block]
    measured: dict[str, Setting] = field(default_factory=dict)


class PruneBlocks(Stage, frozen=True, tag="prune_blocks"):
    """Depth pruning: residual sums x + f(x) become x where f matters least.

    Blocks are those of residual networks and inverted residuals whose shortcut is no layer, and
    the attention and feed-forward halves of transformer layers. No width changes, so every kernel
    that is left runs as before; the network should be fine-tuned afterwards.

    Source: Veit, Wilber, Belongie, "Residual networks behave like ensembles of relatively shallow
    networks", 2016, section 4; Men et al., "ShortGPT", 2024, section 3.

    Attributes:
        blocks: how many go; null is one, unless ``speedup`` is given.
        speedup: latency now over latency afterwards, measured on the runtime: blocks go in the
            order of importance per millisecond.
        runtime: that the speed-up is measured on.
        precision: of the file that is timed.
        importance: what says that a block matters: "outputs", how far those of the network move
            without it and the ones that went before; "influence", how far it turns its input; or
            "random", the control.
        keep: blocks that stay: paths of modules, or wildcards.
        samples: calibration samples of "outputs" and "influence".
        batch_size: samples per forward pass.
        seed: of "random".
    """

    works_on: ClassVar[Phase] = Phase.TRAINED
    yields: ClassVar[Phase] = Phase.TRAINED
    undoes: ClassVar[frozenset[Trait]] = frozenset({ZEROS})

    blocks: Annotated[int, Meta(ge=1)] | None = None
    speedup: Annotated[float, Meta(gt=1)] | None = None
    runtime: Runtime = RUNTIMES[0]
    precision: TimedPrecision = "float32"
    importance: BlockImportance = "outputs"
    keep: tuple[str, ...] = ()
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 64
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        """Refuse two wishes at once.

        Raises:
            BadInputError: there are blocks and speedup.
        """
        super().__post_init__()
        refuse_together("prune_blocks", {"blocks": self.blocks, "speedup": self.speedup})

    def milder(self) -> "PruneBlocks | None":
        """Remove one block less, or ask for 0.7 of the time that is to be saved."""
        if self.speedup is not None:
            return msgspec.structs.replace(self, speedup=milder_speedup(self.speedup))
        blocks = self.blocks or BLOCKS
        return msgspec.structs.replace(self, blocks=blocks - 1) if blocks > 1 else None

    def machine(self, device: torch.device) -> str | None:
        """Return what blocks by latency depend on."""
        return None if self.speedup is None else this_machine()

    def estimate(self, state: ModelState) -> Estimated:
        """Estimate the time; of a search by latency it is not known."""
        return Estimated(None, state) if self.speedup is not None else super().estimate(state)

    @classmethod
    def rebuild(cls, graph: fx.GraphModule, entry: HistoryEntry) -> fx.GraphModule:
        """Return the graph without the blocks that went."""
        return remove_blocks(graph, recorded_lines(entry, "removed"))

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state of the shallower network; its history says which blocks went.

        Raises:
            BadInputError: the network has no blocks or fewer than shall go, a name in ``keep``
                matches none, or the speed-up is out of reach.
        """
        graph = state.trainable_graph()
        blocks = self._chosen(find_blocks(graph))
        choice = self._choose(state, graph, blocks)
        names = tuple(block.name for block in choice.removed)
        smaller = remove_blocks(graph, names)
        if not any(is_weighted(node) for node in smaller.graph.nodes):
            raise BadInputError(f"no layer would be left without {', '.join(names)}: lower blocks")
        return state.with_network(TracedNetwork(smaller)), {
            "removed": names,
            "macs_before": MacCounter(TensorAxes(graph)).count({}),
            "macs_after": MacCounter(TensorAxes(smaller)).count({}),
            **choice.measured,
        }

    def _chosen(self, blocks: list[Block]) -> list[Block]:
        """Leave out what shall stay."""
        if not blocks:
            raise BadInputError(
                "the network has no residual block that can be removed: none adds its input x to "
                "f(x) of the same shape, read by nothing else"
            )
        for pattern in self.keep:
            if not any(_matches(block, pattern) for block in blocks):
                raise BadInputError(
                    f"keep names '{pattern}', which is no block"
                    f"{meant(pattern, [b.name for b in blocks])}"
                )
        chosen = [b for b in blocks if not any(_matches(b, p) for p in self.keep)]
        if not chosen:
            raise BadInputError("there is no block to remove: keep names all of them")
        return chosen

    def _choose(self, state: ModelState, graph: fx.GraphModule, blocks: Sequence[Block]) -> _Choice:
        task = state.subject.task
        batches = calibration_batches(task, self.samples, self.batch_size)
        judge = BlockJudge(graph, blocks, batches, is_classification(task))
        if self.speedup is not None:
            return self._fast_enough(state, graph, blocks, judge, self.speedup)
        alike = dict.fromkeys(blocks, 1.0)
        wanted = self.blocks or BLOCKS
        order = removal_order(blocks, self.importance, judge, alike, self.seed, wanted)
        if len(order) < wanted:
            raise BadInputError(
                f"{wanted} blocks should be removed, only {len(order)} can be: "
                "lower blocks, or keep fewer"
            )
        return _Choice(order, {"damage": judge.damage(order)})

    def _fast_enough(
        self,
        state: ModelState,
        graph: fx.GraphModule,
        blocks: Sequence[Block],
        judge: BlockJudge,
        speedup: float,
    ) -> _Choice:
        """Return the fewest blocks without which the network is fast enough."""
        timer = FileTimer(state, graph, load_target(self.runtime), precision_named(self.precision))
        alone = timer.prices({b.name: remove_blocks(graph, [b.name]) for b in blocks})
        prices = {b: max(0.0, 1 - alone.ratios[b.name].value) for b in blocks}
        order = removal_order(blocks, self.importance, judge, prices, self.seed)

        def measured(step: int) -> Estimate:
            smaller = remove_blocks(graph, [b.name for b in order[:step]])
            return timer.ratios({"shallow": smaller})["shallow"]

        step, latency, _ = first_fast_enough(len(order), measured, speedup)
        return _Choice(
            order[:step],
            {
                "damage": judge.damage(order[:step]),
                "latency_ratio": latency.value,
                "latency_ratio_ci95": (f"{latency.lo:.4f}", f"{latency.hi:.4f}"),
                "price_of_a_block": tuple(f"{b.name}={p:.5f}" for b, p in prices.items()),
                "prices_cached": alone.cached,
            },
        )


def _matches(block: Block, pattern: str) -> bool:
    """Say whether a pattern names a block, or a module that it is in."""
    steps = block.name.split(".")
    paths = (".".join(steps[:end]) for end in range(1, len(steps) + 1))
    return any(fnmatchcase(path, pattern) for path in paths)
