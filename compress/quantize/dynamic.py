"""The stage that marks a network for dynamic quantization."""

from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.compress.targets.target import Target, weight_bits


class QuantizeDynamic(Stage, frozen=True, tag="quantize_dynamic"):
    """Dynamic quantization: int8 per-channel weights; the runtime measures each activation's range.

    There is nothing to calibrate. Linear and recurrent layers are quantized, where the runtime
    has a kernel for it; everything else computes in float32.

    Attributes:
        weight_bits: of ONNX Runtime's weights; 7, stored in 8, keep sums from saturating on x86
            CPUs without VNNI.
    """

    works_on: ClassVar[Phase] = Phase.FLOAT
    yields: ClassVar[Phase] = Phase.QUANTIZED

    weight_bits: Annotated[int, Meta(ge=7, le=8)] = 8

    @property
    def quantizes_to(self) -> str:
        """Precision of the network: it has no table of encodings."""
        return "weight-only or dynamic"

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Mark the state; the files are quantized by each runtime's own rules when exported."""
        return replace(state, dynamic_bits=self.weight_bits), {}

    def fit(
        self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()
    ) -> "QuantizeDynamic":
        """Take no more bits than the kernels of every target can add up."""
        bits = min(self.weight_bits, weight_bits((*targets, *judged_on)))
        return msgspec.structs.replace(self, weight_bits=bits)
