"""What every layer's quantization does to a network: it alone, all but it, and it kept in float."""

from dataclasses import dataclass

from torch import fx

from edgedl.compress.encodings.quantized_layers import QuantizedLayer, quantized_layers
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.search.damage import Damage, DamageMeter, as_tensors, labelled_batches
from edgedl.compress.quantize.search.replay import Values, outputs, rerun, run, switchable
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.task.task import Batch, Task

SAMPLES = 128
BATCH = 32


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer's part in the damage.

    Attributes:
        layer: the layer.
        only: with this layer alone quantized: its weight and the tensor it writes. Ranks layers.
        all_but: with all but this one quantized, the tensor it writes float too.
        kept_float: with all quantized and this operator in ``float_nodes``, as a file would hold
            it: int8 layers that read its tensor still round it. None for the network's inputs.
    """

    layer: QuantizedLayer
    only: Damage
    all_but: Damage
    kept_float: Damage | None


@dataclass(frozen=True)
class Sensitivity:
    """The damage of a whole network and of its layers.

    Attributes:
        samples: how many were looked at.
        exact: the float network: its score, no noise.
        int8: with all layers quantized.
        layers: the worst first, by the noise of each alone.
    """

    samples: int
    exact: Damage
    int8: Damage
    layers: tuple[LayerSensitivity, ...]


def measure_sensitivity(
    reference: fx.GraphModule,
    network: QuantizedNetwork,
    task: Task,
    samples: int = SAMPLES,
    batch_size: int = BATCH,
    progress: Progress = SILENT,
) -> Sensitivity:
    """Quantize and unquantize every layer by itself, on calibration samples.

    Only what depends on the layer is computed each time. Layers that are in float already are
    left out.

    Args:
        reference: float graph that the network was quantized from.
        network: its quantized form.
        task: its calibration samples and score.
        samples: how many of them.
        batch_size: how many are in memory at a time.
        progress: each batch is a step.

    Raises:
        BadInputError: there are no calibration samples.
    """
    simulation = switchable(reference, network)
    layers = quantized_layers(reference, network.encodings)
    everything = frozenset(node for layer in layers for node in layer.nodes)
    meters = [_Meters(simulation, layer, everything, task) for layer in layers]
    exact, int8 = DamageMeter(task), DamageMeter(task)
    count = 0
    for batch in labelled_batches(task, samples, batch_size):
        progress.step(f"samples {count + 1} to {count + len(batch.labels)}")
        inputs = as_tensors(batch)
        floats, integers = run(simulation, inputs, active=()), run(simulation, inputs)
        exact.add(outputs(floats), outputs(floats), batch)
        int8.add(outputs(floats), outputs(integers), batch)
        for meter in meters:
            meter.add(floats, integers, batch)
        count += len(batch.labels)
    worst_first = sorted((m.result() for m in meters), key=lambda s: -s.only.noise)
    return Sensitivity(count, exact.result(), int8.result(), tuple(worst_first))


class _Meters:
    """Counts one layer's damage in its three forms."""

    def __init__(
        self,
        simulation: Simulation,
        layer: QuantizedLayer,
        everything: frozenset[fx.Node],
        task: Task,
    ) -> None:
        self._simulation, self._layer = simulation, layer
        # Its own nodes compute otherwise, and what reads its tensor.
        self._start = layer.nodes | {user for node in layer.nodes for user in node.users}
        self._others = everything - layer.nodes
        self._kept = None if layer.node is None else simulation.keeping_float({layer.node.name})
        self._only, self._all_but, self._kept_float = (DamageMeter(task) for _ in range(3))

    def add(self, floats: Values, integers: Values, batch: Batch) -> None:
        exact = outputs(floats)
        only = rerun(self._simulation, floats, self._start, self._layer.nodes)
        self._only.add(exact, only, batch)
        self._all_but.add(
            exact, rerun(self._simulation, integers, self._start, self._others), batch
        )
        if self._kept is not None:
            self._kept_float.add(exact, rerun(self._kept, integers, self._start), batch)

    def result(self) -> LayerSensitivity:
        kept_float = None if self._kept is None else self._kept_float.result()
        return LayerSensitivity(
            self._layer, self._only.result(), self._all_but.result(), kept_float
        )
