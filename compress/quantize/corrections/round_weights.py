"""The stage that rounds the weights of a quantized network with its data in view."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from msgspec import Meta

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.parity.blame import CLEAN_DB
from edgedl.compress.parity.outputs import compare_graphs
from edgedl.compress.quantize.corrections.layerwise import correct_layers
from edgedl.compress.quantize.corrections.rounding import round_layer
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.backend import Array


class RoundWeights(Refinement, frozen=True, tag="round_weights"):
    """Layer by layer, choose integer weights whose outputs are nearest to the float network's.

    Where the outputs of the whole network come out farther from the float network's, the weights
    stay as they were.

    Attributes:
        samples: calibration samples; their activations are held in memory, one layer at a time.
        batch_size: samples per forward pass.
        judged: calibration samples that the outputs are compared on.
    """

    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16
    judged: Annotated[int, Meta(ge=2)] = 32

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Replace the weights and biases of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = self.network(state)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        corrected = correct_layers(quantized.graph, quantized.encodings, batches, round_layer)
        seen = next(calibration_inputs(state.subject.task, self.judged, self.judged))
        inputs = tuple(x.numpy() for x in seen)
        before, after = (_decibels(state, network, inputs) for network in (quantized, corrected))
        if after < before:
            state.progress.note(
                f"the weights stay rounded to nearest: {after:.1f} dB instead of {before:.1f}"
            )
            return state, {"kept": False}
        return replace(state, quantized=corrected), {"kept": True}


def _decibels(state: ModelState, network: QuantizedNetwork, inputs: tuple[Array, ...]) -> float:
    """Return the mean decibels of the outputs of a quantized network."""
    emitted = emit(network.graph, network.encodings, REFERENCE)
    compared = compare_graphs(state.graph, emitted, inputs)
    known = [CLEAN_DB if c.float32_sqnr_db is None else c.float32_sqnr_db for c in compared]
    return float(np.mean(known))
