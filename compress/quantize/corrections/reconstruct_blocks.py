"""The stage that learns how to round the weights of whole blocks at a time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.encodings import per_channel
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.estimate import Work
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.quantize.corrections.adaround import SoftRounding
from edgedl.compress.quantize.corrections.blocks import Block, find_blocks
from edgedl.compress.quantize.corrections.layerwise import replace_parameters
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs

# What nodes have computed of one batch.
Values = dict[fx.Node, Any]


class ReconstructBlocks(Refinement, frozen=True, tag="reconstruct_blocks"):
    """Block by block, learn which weights to round up, by what the float block gives.

    Errors of the layers of a block can cancel, which they cannot where each layer is learned on its
    own as by ``learn_rounding``: it is for weights of 4 bits and fewer.

    Source: Li et al., "BRECQ: pushing the limit of post-training quantization by block
    reconstruction", 2021, sections 3.2 and 3.3. Of the loss, the plain squared error is taken, not
    the one weighted by gradients; steps of activations stay as calibrated. The rounding is
    AdaRound's.

    Attributes:
        samples: calibration samples; what lies between two blocks is held in memory for all.
        batch_size: samples per step.
        iterations: steps of Adam per block.
        learning_rate: of Adam.
        layers: fewest layers of a block. It ends where a single value is all that follows reads.
        seed: of the order of the batches; the same one gives the same weights.
    """

    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32
    iterations: Annotated[int, Meta(ge=1)] = 1000
    learning_rate: Annotated[float, Meta(gt=0)] = 0.01
    layers: Annotated[int, Meta(ge=1)] = 2
    seed: Annotated[int, Meta(ge=0)] = 0

    @torch.no_grad()
    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Replace the weights of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = self.network(state)
        simulation = Simulation(quantized.graph, quantized.encodings)
        layers = [n for n in simulation.weighted if not simulation.shares_weight(n)]
        blocks = find_blocks(quantized.graph, layers, self.layers)
        exact, rounded = (self._inputs(state, quantized.graph) for _ in range(2))
        readers = _readers(blocks)
        better = 0
        for number, block in enumerate(blocks, 1):
            state.progress.note(f"{self.name}, block {number} of {len(blocks)}")
            targets = [_run(simulation, block, values, active=()) for values in exact]
            if block.layers:
                better += self._learn(simulation, block, rounded, targets)
            for values, found in zip(exact, targets, strict=True):
                values |= found
            for values in rounded:
                values |= _run(simulation, block, values)
            readers -= _readers([block])
            for values in (*exact, *rounded):
                for done in [v for v in values if not readers[v]]:
                    del values[done]
        ranges = {n: quantized.encodings.weights[Weighted.of(n).weight_path] for n in layers}
        found = {n: (simulation.rounded(n)[0], simulation.bias(n)) for n in layers}
        corrected = replace_parameters(quantized.graph, quantized.encodings, found, ranges)
        return replace(state, quantized=corrected), {"blocks": len(blocks), "better": better}

    def work(self, state: ModelState) -> Work:
        """Count the steps of Adam."""
        return Work(self.iterations, lambda n: msgspec.structs.replace(self, iterations=n))

    def _inputs(self, state: ModelState, graph: fx.GraphModule) -> list[Values]:
        """Return the inputs of the network, a batch at a time."""
        names = [n for n in graph.graph.nodes if n.op == "placeholder"]
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        return [
            dict(zip(names, in_fast_layout(graph, tuple(batch)), strict=True)) for batch in batches
        ]

    def _learn(
        self,
        simulation: Simulation,
        block: Block,
        inputs: Sequence[Values],
        targets: Sequence[Values],
    ) -> bool:
        """Give a block's layers learned weights, and say so; the nearest where those are better."""
        generator = torch.Generator().manual_seed(self.seed)
        roundings = {n: _soft_rounding(simulation, n) for n in block.layers}
        optimizer = torch.optim.Adam(
            [rounding.logits for rounding in roundings.values()], lr=self.learning_rate
        )
        channels = len(simulation.scales[block.layers[-1]])
        before = _error(simulation, block, inputs, targets, channels)
        with torch.enable_grad():
            for iteration in range(self.iterations):
                k = int(torch.randint(len(inputs), (), generator=generator))
                for node, rounding in roundings.items():
                    simulation.take_weight(node, rounding.weight())
                loss = _difference(_run(simulation, block, inputs[k]), targets[k], channels)
                if not loss.requires_grad:
                    # It gives integers, or nothing that its weights change.
                    return _keep_nearest(simulation, roundings)
                for rounding in roundings.values():
                    loss = loss + rounding.penalty(iteration / self.iterations)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for node, rounding in roundings.items():
            simulation.take_weight(node, rounding.learned())
        if _error(simulation, block, inputs, targets, channels) < before:
            return True
        return _keep_nearest(simulation, roundings)


def _soft_rounding(simulation: Simulation, node: fx.Node) -> SoftRounding:
    weight = simulation.weight(node)
    step = per_channel(simulation.scales[node], row_of(node).weight_axis, weight.ndim)
    return SoftRounding(weight, step, simulation.weight_qmax)


def _run(
    simulation: Simulation, block: Block, before: Values, active: tuple[fx.Node, ...] | None = None
) -> Values:
    """Return what a block gives; see ``Simulation.compute`` for ``active``."""
    values = dict(before)
    for node in block.nodes:
        values[node] = simulation.compute(node, values, active)
    return {node: values[node] for node in block.gives}


def _keep_nearest(simulation: Simulation, roundings: Mapping[fx.Node, SoftRounding]) -> bool:
    """Give layers their nearest weights; return that nothing was gained."""
    for node, rounding in roundings.items():
        simulation.take_weight(node, rounding.nearest())
    return False


def _difference(found: Values, wanted: Mapping[fx.Node, Any], channels: int) -> Tensor:
    """Return the squared error of a block's float values, summed over ``channels`` that it gives.

    It is averaged over samples and places, so that it stands to the penalty as in AdaRound.
    """
    total = torch.zeros(())
    for node, value in found.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            total = total + (value - wanted[node]).square().mean() * channels
    return total


def _error(
    simulation: Simulation,
    block: Block,
    inputs: Sequence[Values],
    targets: Sequence[Values],
    channels: int,
) -> float:
    pairs = zip(inputs, targets, strict=True)
    errors = [float(_difference(_run(simulation, block, x), y, channels)) for x, y in pairs]
    return sum(errors) / len(errors)


def _readers(blocks: Sequence[Block]) -> Counter[fx.Node]:
    """Return how many operators of some blocks read each value."""
    return Counter(
        value for block in blocks for node in block.nodes for value in node.all_input_nodes
    )
