"""The stage that leaves recurrent layers of an int8 network to the runtime's dynamic kernels."""

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from edgedl.compress.graph.operators.table import is_recurrent
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import MAX_WEIGHT_BITS, Target, weight_bits


class QuantizeRecurrent(Refinement, frozen=True, tag="quantize_recurrent"):
    """Hybrid quantization: convolutions static, recurrent layers dynamic.

    A recurrent layer keeps its fused kernel, which static pairs around every step would break. On
    ONNX Runtime the LSTMs of int8 files get int8 weights, and ranges found while they run. There
    are files of dynamic int8, too: which is faster is measured.

    Attributes:
        weight_bits: of the recurrent weights; 7, stored in 8, keep sums from saturating on x86 CPUs
            without VNNI.
    """

    weight_bits: Annotated[int, Meta(ge=7, le=8)] = MAX_WEIGHT_BITS

    def fit(
        self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()
    ) -> "QuantizeRecurrent":
        """Take no more bits than the kernels of every target can add up."""
        bits = min(self.weight_bits, weight_bits((*targets, *judged_on)))
        return msgspec.structs.replace(self, weight_bits=bits)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Mark the state; the files are quantized by the runtime's own rules when exported.

        Raises:
            BadInputError: the network is not quantized.
        """
        self.network(state)
        layers = [n.name for n in state.graph.graph.nodes if is_recurrent(n)]
        return replace(state, dynamic_bits=self.weight_bits), {"layers": tuple(layers)}
