"""The noise of a quantized network taken apart: each part, and what in float would end it."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.quantized_layers import QuantizedLayer, quantized_layers
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.quantize.search.damage import Damage, DamageMeter, as_tensors, labelled_batches
from edgedl.compress.quantize.search.replay import (
    Values,
    compute,
    outputs,
    rerun,
    run,
    switchable,
)
from edgedl.compress.quantize.search.sensitivity import BATCH, SAMPLES
from edgedl.runtime.task.task import Task

Part = Literal["weight", "tensor"]


@dataclass(frozen=True)
class NoiseTerm:
    """One rounding, by itself.

    A file rounds a weight unless its layer is float. It rounds a tensor as long as the layer that
    writes it or one that reads it is int8.

    Attributes:
        layer: name of the layer.
        part: its weight (with constant operands), or the tensor it writes.
        damage: with this rounding alone.
        needs: nodes that must all be in ``float_nodes`` for the rounding to end.
    """

    layer: str
    part: Part
    damage: Damage
    needs: frozenset[str]


@dataclass(frozen=True)
class Roundings:
    """All roundings of a network.

    Attributes:
        int8: the damage with every layer quantized.
        terms: in the order of the layers. Roundings are nearly independent of each other, so that
            their noises add up to nearly that of ``int8``.
    """

    int8: Damage
    terms: tuple[NoiseTerm, ...]

    @property
    def predicted_noise(self) -> float:
        """The sum of the parts."""
        return sum(term.damage.noise for term in self.terms)

    def predicted_sqnr_db(self, kept: Collection[str]) -> float:
        """Return what is expected of the network with some operators in float.

        The share of the parts that stay is taken of the noise that was measured.

        Args:
            kept: names of their nodes.
        """
        stay = sum(t.damage.noise for t in self.terms if not t.needs <= frozenset(kept))
        share = stay / self.predicted_noise if self.predicted_noise else 0.0
        return replace(self.int8, noise=self.int8.noise * share).sqnr_db


def measure_noise_terms(
    reference: fx.GraphModule,
    network: QuantizedNetwork,
    task: Task,
    samples: int = SAMPLES,
    batch_size: int = BATCH,
) -> Roundings:
    """Measure every rounding alone on calibration samples; arguments as ``measure_sensitivity``.

    Raises:
        BadInputError: there are no calibration samples.

    Source: that the noises of all roundings add up at the outputs, as if they were independent, is
    the model of Lin, Talathi, Annapureddy, "Fixed point quantization of deep convolutional
    networks", 2016.
    """
    simulation = switchable(reference, network)
    layers = quantized_layers(reference, network.encodings)
    terms = [t for layer in layers for t in _roundings(layer)]
    meters = [DamageMeter(task) for _ in terms]
    int8 = DamageMeter(task)
    for batch in labelled_batches(task, samples, batch_size):
        inputs = as_tensors(batch)
        floats = run(simulation, inputs, active=())
        exact = outputs(floats)
        int8.add(exact, outputs(run(simulation, inputs)), batch)
        for (layer, part, _), meter in zip(terms, meters, strict=True):
            meter.add(exact, _round_only(simulation, layer, part, floats), batch)
    measured = [
        NoiseTerm(layer.name, part, meter.result(), needs)
        for (layer, part, needs), meter in zip(terms, meters, strict=True)
    ]
    return Roundings(int8.result(), tuple(measured))


def _roundings(layer: QuantizedLayer) -> list[tuple[QuantizedLayer, Part, frozenset[str]]]:
    """Return a layer's roundings, and the nodes that must be float for each to end."""
    own = frozenset() if layer.node is None else frozenset({layer.node.name})
    found: list[tuple[QuantizedLayer, Part, frozenset[str]]] = [
        (layer, "tensor", own | layer.readers)
    ]
    if layer.node is not None and (is_weighted(layer.node) or layer.constants):
        found.append((layer, "weight", own))
    return found


def _round_only(
    simulation: Simulation, layer: QuantizedLayer, part: Part, floats: Values
) -> tuple[Tensor, ...]:
    """Return the outputs with one rounding and no other."""
    if part == "tensor" or layer.node is None:
        readers = {user for node in layer.values for user in node.users}
        return rerun(simulation, floats, readers, layer.values)
    node = layer.node
    with torch.no_grad():
        value = compute(simulation, node, floats, {node} | layer.constants)
    return rerun(simulation, {**floats, node: value}, set(node.users), ())
