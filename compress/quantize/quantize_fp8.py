"""The stage that quantizes weights and activations to 8-bit floats after training."""

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from edgedl.compress.quantize.calibrate import calibrate
from edgedl.compress.quantize.network import QuantizedNetwork
from edgedl.compress.quantize.static import calibration_inputs, kept_float
from edgedl.compress.stage import ModelState
from edgedl.runtime.manifest import HistoryEntry


class QuantizeFp8(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="stage", tag="quantize_fp8"
):
    """Post-training static FP8: E4M3 weights and activations, for TensorRT alone.

    A float keeps its precision over a wide range, so that nothing is gained by clipping: ranges
    are those that were seen.

    Source: Micikevicius et al., "FP8 formats for deep learning", 2022, section 3.2.

    Attributes:
        samples: calibration samples; memory does not grow with them.
        batch_size: samples per forward pass.
        keep_float: layers that stay float32: module paths, with all that is inside, or wildcards.
    """

    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32
    keep_float: tuple[str, ...] = ()

    def apply(self, state: ModelState) -> ModelState:
        """Fill the encodings table from the calibration split.

        Raises:
            BadInputError: calibration data is missing or not finite, or a name in ``keep_float``
                matches no layer.
        """
        kept = kept_float(state.graph, self.keep_float, "fp8")
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        table = calibrate(state.graph, batches, "minmax", precision="fp8")
        quantized = QuantizedNetwork(state.graph, replace(table, float_nodes=kept))
        entry = HistoryEntry("quantize_fp8", msgspec.structs.asdict(self))
        return replace(state, quantized=quantized, history=(*state.history, entry))
