"""The stage that marks a network for dynamic quantization."""

from dataclasses import replace

import msgspec

from edgedl.compress.stage import ModelState
from edgedl.runtime.manifest import HistoryEntry


class QuantizeDynamic(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="stage",
    tag="quantize_dynamic",
):
    """Dynamic quantization: int8 per-channel weights; the runtime measures each activation's range.

    There is nothing to calibrate. Linear and recurrent layers are quantized, where the runtime
    has a kernel for it; everything else computes in float32.
    """

    def apply(self, state: ModelState) -> ModelState:
        """Mark the state; the files are quantized by each runtime's own rules when exported."""
        entry = HistoryEntry("quantize_dynamic", {})
        return replace(state, dynamic=True, history=(*state.history, entry))
