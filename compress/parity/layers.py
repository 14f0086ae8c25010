"""Hold a file against its torch graph layer by layer, and two files against each other.

What is compared are the integers of every quantized tensor, as a whole run gives them: an error
early in the network is also in what comes after it, so the first layer that differs is the cause.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import fx

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.encodings.pair import Pair
from edgedl.compress.export.exporter import Centred, exporter_of
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.operator import first_input
from edgedl.compress.graph.operators.table import is_clip
from edgedl.compress.parity.computed import compute, is_computed_here, observe
from edgedl.compress.parity.inner_tensors import GraphIntegers, quantize_nodes
from edgedl.compress.parity.match_tensors import Match, match_tensors
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.certificates import LayerCertificate, LayerParity
from edgedl.runtime.tensors import encode

LAYER_SAMPLES = 32
# So many values of all layers show their means and shares; a few samples are read in any case.
ENOUGH_VALUES = 2_000_000
LEAST_LAYER_SAMPLES = 4

Sample = tuple[Array, ...]


class LayerReader(Protocol):
    """Something that computes a network and shows the integers inside."""

    def read(self, sample: Sample) -> dict[str, Centred]:
        """Return centred integers by node name, in the layout of the torch graph."""
        ...


class FileIntegers:
    """Runs a file and keeps its quantized tensors under the names of the torch graph."""

    def __init__(self, built: BuiltArtifact, sample: Sample) -> None:
        """Find which tensor of the file is which of the graph, with one sample.

        Raises:
            BackendUnavailableError: the runtime is not installed.
            BadInputError: the runtime cannot show what is inside the file.
        """
        self._artifact = built.artifact
        tensors = exporter_of(built.target).inner_tensors(built.content)
        self._session = observe(built, [t.name for t in tensors])
        self._tensors = tensors
        reference = GraphIntegers(built.graph)
        expected = reference.read(sample)
        self.matches: dict[str, Match] = match_tensors(
            list(reference.tensors.values()), expected, tensors, self._run(sample)[1]
        )
        self.outputs: list[Array] = []

    def read(self, sample: Sample) -> dict[str, Centred]:
        """Return centred integers by node name; ``outputs`` keeps the outputs of this run."""
        self.outputs, found = self._run(sample)
        return {node: m.to_graph(found[m.tensor.name]) for node, m in self.matches.items()}

    def _run(self, sample: Sample) -> tuple[list[Array], dict[str, Array]]:
        specs = self._artifact.inputs
        values = self._session.run([encode(x, s) for x, s in zip(sample, specs, strict=True)])
        count = len(self._artifact.outputs)
        names = [t.name for t in self._tensors]
        return values[:count], dict(zip(names, values[count:], strict=True))


@dataclass
class Difference:
    """Sums over what two readers found for one tensor."""

    count: int = 0
    differing: int = 0
    largest: int = 0
    absolute: int = 0
    squared: int = 0
    energy: int = 0

    def add(self, reference: Centred, found: Centred) -> None:
        """Take one more pair of tensors of the same shape."""
        error = np.abs(found.astype(np.int64) - reference)
        self.count += error.size
        self.differing += int((error > 0).sum())
        self.largest = max(self.largest, int(error.max(initial=0)))
        self.absolute += int(error.sum())
        self.squared += int((error * error).sum())
        self.energy += int((reference.astype(np.int64) ** 2).sum())

    def describe(self, node: str, layer: str, tensor: str) -> LayerParity:
        """Return the record."""
        sqnr = 10 * np.log10(self.energy / self.squared) if self.energy and self.squared else None
        return LayerParity(
            node=node,
            layer=layer,
            tensor=tensor,
            max_lsb=self.largest,
            mean_lsb=self.absolute / self.count,
            differing=self.differing / self.count,
            sqnr_db=None if sqnr is None else float(sqnr),
        )


class LayerDifferences:
    """What two readers found for every tensor that both have, in the first one's order.

    Attributes:
        by_node: sums by node name.
        samples: that were compared.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.by_node: dict[str, Difference] = {}
        self.samples = 0

    def add(self, expected: dict[str, Centred], found: dict[str, Centred]) -> None:
        """Take in one sample."""
        self.samples += 1
        for node, integers in expected.items():
            if node in found:
                self.by_node.setdefault(node, Difference()).add(integers, found[node])

    @property
    def enough(self) -> bool:
        """Whether more samples would change little."""
        values = sum(difference.count for difference in self.by_node.values())
        return _are_enough(self.samples, values)


def _are_enough(samples: int, values: int) -> bool:
    return samples >= LEAST_LAYER_SAMPLES and values >= ENOUGH_VALUES


def read_enough(reader: LayerReader, samples: Iterable[Sample]) -> list[dict[str, Centred]]:
    """Return the integers of as many samples as show how a network's layers differ."""
    found: list[dict[str, Centred]] = []
    for sample in samples:
        values = sum(x.size for integers in found for x in integers.values())
        if _are_enough(len(found), values):
            break
        found.append(reader.read(sample))
    return found


def certify_layers(built: BuiltArtifact, samples: list[Sample]) -> LayerCertificate:
    """Compare the inner tensors of an int8 file with those of the graph it was made from.

    Of a large network fewer samples are read.

    Args:
        built: the file with its graph.
        samples: inputs with a batch of one, at least one.

    Raises:
        BackendUnavailableError: the runtime is not installed.
        BadInputError: the runtime cannot show what is inside the file.
    """
    reader, graph = FileIntegers(built, samples[0]), GraphIntegers(built.graph)
    # What stands in for a runtime computes the same, observed or not.
    shipped = compute(built).session if is_computed_here(built) else None
    differences = LayerDifferences()
    differing = count = 0
    for sample in samples:
        if differences.enough:
            break
        differences.add(graph.read(sample), reader.read(sample))
        if shipped is not None:
            encoded = [encode(x, s) for x, s in zip(sample, built.artifact.inputs, strict=True)]
            for a, b in zip(shipped.run(encoded), reader.outputs, strict=True):
                differing += int((a != b).sum())
                count += a.size
    layers = layers_of(built.graph)
    return LayerCertificate(
        samples=differences.samples,
        outputs_differ=differing / max(1, count),
        layers=tuple(
            d.describe(node, layers[node], reader.matches[node].tensor.name)
            for node, d in differences.by_node.items()
        ),
        not_compared=tuple(node for node in layers if node not in differences.by_node),
    )


def layers_of(graph: fx.GraphModule) -> dict[str, str]:
    """Return the module path of every quantized tensor of a graph, by node name.

    An activation belongs to the layer it is folded into.
    """
    quantized = [Pair.of(n).input for n in quantize_nodes(graph)]
    return {n.name: _layer_of(n) for n in quantized}


def _layer_of(node: fx.Node) -> str:
    source = first_input(node) if is_clip(node) else None
    return layer_name(node) or (_layer_of(source) if isinstance(source, fx.Node) else "")


def single_samples(batches: Iterable[Sample], count: int = LAYER_SAMPLES) -> Iterator[Sample]:
    """Yield the first samples of some batches, each as a batch of one."""
    for batch in batches:
        for index in range(len(batch[0])):
            if count <= 0:
                return
            count -= 1
            yield tuple(x[index : index + 1] for x in batch)
