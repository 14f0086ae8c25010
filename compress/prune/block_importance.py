"""How much a residual block matters: what the network answers without it, on calibration data."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgedl.compress.prune.find_blocks import Block
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.training.distances import softened_divergence, squared_difference
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import Task

BlockImportance = Literal["outputs", "influence", "random"]

Inputs = tuple[Tensor, ...]


class BlockJudge:
    """Runs a network without some of its blocks, on batches that are held in memory."""

    def __init__(
        self,
        graph: fx.GraphModule,
        blocks: Sequence[Block],
        batches: Sequence[Inputs],
        classification: bool,
    ) -> None:
        """Compute what the whole network answers.

        Args:
            graph: of ``export_graph``.
            blocks: of that graph.
            batches: inputs [B, ...].
            classification: whether the first output is a logit per class.
        """
        self._graph, self._blocks, self._batches = graph, blocks, batches
        self._classification = classification
        self._whole = [self._outputs(x, ()) for x in batches]

    def damage(self, removed: Collection[Block]) -> float:
        """Return how far the outputs move without some blocks, on average over samples.

        Of a classification the divergence KL(whole || without them), else the squared difference.
        """
        total = 0.0
        for inputs, whole in zip(self._batches, self._whole, strict=True):
            found = self._outputs(inputs, removed)
            apart = (
                softened_divergence(found[0], whole[0], 1.0)
                if self._classification
                else squared_difference(found, whole)
            )
            total += float(apart) * len(whole[0])
        return total / sum(len(whole[0]) for whole in self._whole)

    def influences(self) -> dict[Block, float]:
        """Return of every block 1 minus the cosine of x and x + f(x), on average.

        Vectors are those of the channels: of each token, of each place of a feature map.

        Source: Men et al., "ShortGPT: layers in large language models are more redundant than you
        expect", 2024, equation 1 (block influence), on residual halves and on feature maps too.
        """
        totals = dict.fromkeys(self._blocks, 0.0)
        for inputs in self._batches:
            run = _Influences(self._graph, self._blocks)
            with torch.no_grad():
                run.run(*inputs)
            for block, mean in run.found.items():
                totals[block] += mean * len(inputs[0])
        count = sum(len(inputs[0]) for inputs in self._batches)
        return {block: total / count for block, total in totals.items()}

    def _outputs(self, inputs: Inputs, removed: Collection[Block]) -> Inputs:
        with torch.no_grad():
            return as_tuple(_Without(self._graph, removed).run(*inputs))


class _Without(fx.Interpreter):
    """Computes a graph whose blocks add nothing."""

    def __init__(self, graph: fx.GraphModule, removed: Collection[Block]) -> None:
        super().__init__(graph)
        self._skipped = {node for block in removed for node in block.inside}
        self._shortcuts = {block.add: block.shortcut for block in removed}

    def run_node(self, n: fx.Node) -> Any:
        if n in self._skipped:
            return None
        if n in self._shortcuts:
            # What comes behind the sum may change its input in place.
            return self.env[self._shortcuts[n]].clone()
        return super().run_node(n)


class _Influences(fx.Interpreter):
    """Compares every block's input with its sum."""

    def __init__(self, graph: fx.GraphModule, blocks: Sequence[Block]) -> None:
        super().__init__(graph)
        self._sums = {block.add: block for block in blocks}
        self.found: dict[Block, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        block = self._sums.get(n)
        if block is None:
            return super().run_node(n)
        # The sum may be written over its operand.
        before = self.env[block.shortcut].clone()
        after: Tensor = super().run_node(n)
        channels = 1 if after.ndim == 4 else -1
        self.found[block] = float(1 - F.cosine_similarity(before, after, dim=channels).mean())
        return after


def calibration_batches(task: Task, samples: int, batch_size: int) -> list[Inputs]:
    """Return the inputs of the first calibration samples.

    Raises:
        BadInputError: there are none.
    """
    batches = list(_first(task, samples, batch_size))
    if not batches:
        raise BadInputError(f"the task '{task.name}' has no calibration samples to judge blocks by")
    return batches


def _first(task: Task, samples: int, batch_size: int) -> Iterator[Inputs]:
    left = samples
    for batch in task.batches("calibration", batch_size):
        if left <= 0:
            return
        yield tuple(torch.tensor(x[:left]) for x in batch.inputs)
        left -= len(batch.labels)


def removal_order(
    blocks: Sequence[Block],
    importance: BlockImportance,
    judge: BlockJudge,
    prices: Mapping[Block, float],
    seed: int,
    count: int | None = None,
) -> list[Block]:
    """Return the blocks in the order in which they go: the least important per price first.

    By "outputs", what remains is judged again after each: two neighbours may stand in for each
    other, so that either can go and both cannot. With a block go those that lie inside it.

    Args:
        blocks: that may go.
        importance: what says that a block matters.
        judge: of the whole network.
        prices: what each costs; one that costs nothing stays.
        seed: of "random".
        count: how many shall go; one that others lie inside of goes before them only if enough
            are left. None lets all go that can.
    """
    generator = torch.Generator().manual_seed(seed)
    fixed = (
        judge.influences()
        if importance == "influence"
        else dict(zip(blocks, torch.rand(len(blocks), generator=generator).tolist(), strict=True))
    )
    gone: list[Block] = []
    while count is None or len(gone) < count:
        left = _left(blocks, gone, prices)
        if not left:
            break
        if count is not None:
            wanted = count - len(gone) - 1
            left = [b for b in left if len(_left(blocks, [*gone, b], prices)) >= wanted] or left
        scores = {
            b: judge.damage((*gone, b)) if importance == "outputs" else fixed[b] for b in left
        }
        gone.append(min(left, key=lambda b: scores[b] / prices[b]))
    return gone


def _left(
    blocks: Sequence[Block], gone: Sequence[Block], prices: Mapping[Block, float]
) -> list[Block]:
    """Return the blocks that can still go: they cost something, and lie in none that is gone."""
    swallowed = {node for block in gone for node in (*block.inside, block.add)}
    return [b for b in blocks if b.add not in swallowed and prices[b] > 0]
