"""The stage that rounds the weights of a quantized network with its data in view."""

from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from edgedl.compress.quantize.corrections.layerwise import correct_layers
from edgedl.compress.quantize.corrections.rounding import round_layer
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs


class RoundWeights(Refinement, frozen=True, tag="round_weights"):
    """Layer by layer, choose integer weights whose outputs are nearest to the float network's.

    Attributes:
        samples: calibration samples; their activations are held in memory, one layer at a time.
        batch_size: samples per forward pass.
    """

    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Replace the weights and biases of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = self.network(state)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        corrected = correct_layers(quantized.graph, quantized.encodings, batches, round_layer)
        return replace(state, quantized=corrected), {}
