"""The stage that marks a network for dynamic quantization."""

from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from edgedl.compress.stage import StageSettings
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.manifest import HistoryEntry


class QuantizeDynamic(StageSettings, frozen=True, tag="quantize_dynamic"):
    """Dynamic quantization: int8 per-channel weights; the runtime measures each activation's range.

    There is nothing to calibrate. Linear and recurrent layers are quantized, where the runtime
    has a kernel for it; everything else computes in float32.

    Attributes:
        weight_bits: of ONNX Runtime's weights; 7, stored in 8, keep sums from saturating on x86
            CPUs without VNNI.
    """

    weight_bits: Annotated[int, Meta(ge=7, le=8)] = 8

    def apply(self, state: ModelState) -> ModelState:
        """Mark the state; the files are quantized by each runtime's own rules when exported."""
        entry = HistoryEntry("quantize_dynamic", {"weight_bits": self.weight_bits})
        return replace(state, dynamic_bits=self.weight_bits, history=(*state.history, entry))
