"""The stage that quantizes weights and activations to 8-bit floats after training."""

from dataclasses import replace
from typing import Annotated, ClassVar

from msgspec import Meta
from torch import fx

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.operators.operator import Weighted, first_input
from edgedl.compress.graph.operators.table import is_weighted, moves_values
from edgedl.compress.quantize.static import kept_float
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.compress.subject.calibration import calibration_inputs


class QuantizeFp8(Stage, frozen=True, tag="quantize_fp8"):
    """Post-training static FP8: E4M3 weights and activations, for TensorRT alone.

    A float keeps its precision over a wide range, so that nothing is gained by clipping: ranges
    are those that were seen.

    Source: Micikevicius et al., "FP8 formats for deep learning", 2022, section 3.2; for the first
    layer Shen et al., "Efficient post-training quantization with FP8 formats", 2023.

    Attributes:
        samples: calibration samples; memory does not grow with them.
        batch_size: samples per forward pass.
        keep_float: layers that stay float32: module paths, with all that is inside, or wildcards.
        keep_first: whether layers that read a network input stay float32. Pixels lie far from zero
            beside their differences, of which 3 bits of mantissa keep little.
    """

    works_on: ClassVar[Phase] = Phase.FLOAT
    yields: ClassVar[Phase] = Phase.QUANTIZED

    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32
    keep_float: tuple[str, ...] = ()
    keep_first: bool = True

    @property
    def quantizes_to(self) -> str:
        """Precision of the network."""
        return "fp8"

    @property
    def calibration_samples(self) -> int:
        """Most samples that ranges are found with."""
        return self.samples

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Fill the encodings table from the calibration split.

        Raises:
            BadInputError: calibration data is missing or not finite, or a name in ``keep_float``
                matches no layer.
        """
        kept = kept_float(state.graph, self.keep_float, "fp8")
        if self.keep_first:
            kept |= first_layers(state.graph)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        table = calibrate(state.graph, batches, "minmax", precision="fp8")
        quantized = QuantizedNetwork(state.graph, replace(table, float_nodes=kept))
        return replace(state, quantized=quantized), {}


def first_layers(graph: fx.GraphModule) -> frozenset[str]:
    """Return the names of the layers that read a network input, as it is or moved."""
    raw: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (moves_values(node) and first_input(node) in raw):
            raw.add(node)
    layers = [n for n in graph.graph.nodes if is_weighted(n)]
    return frozenset(n.name for n in layers if Weighted.of(n).input in raw)
