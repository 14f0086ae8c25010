"""The stage that learns how to round the weights of a quantized network."""

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta
from torch import Tensor

from edgedl.compress.quantize.corrections.adaround import Reconstruction, learn
from edgedl.compress.quantize.corrections.layerwise import Layer, correct_layers
from edgedl.compress.quantize.static import calibration_inputs
from edgedl.compress.stage import Refinement
from edgedl.compress.state import ModelState, quantized_by
from edgedl.runtime.bundle.manifest import HistoryEntry


class LearnRounding(Refinement, frozen=True, tag="learn_rounding"):
    """AdaRound: layer by layer, learn which weights to round up and which down.

    Attributes:
        samples: calibration samples; their activations are held in memory.
        batch_size: samples per forward pass.
        iterations: steps of Adam per layer.
        learning_rate: of Adam.
        seed: of the order in which activations are looked at; the same one gives the same weights.
    """

    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16
    iterations: Annotated[int, Meta(ge=1)] = 1000
    learning_rate: Annotated[float, Meta(gt=0)] = 0.01
    seed: Annotated[int, Meta(ge=0)] = 0

    def apply(self, state: ModelState) -> ModelState:
        """Replace the weights of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = quantized_by(state, "learn_rounding", self.works_on)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        corrected = correct_layers(quantized.graph, quantized.encodings, batches, self._learn)
        entry = HistoryEntry("learn_rounding", msgspec.structs.asdict(self))
        return replace(state, quantized=corrected, history=(*state.history, entry))

    def _learn(self, layer: Layer) -> tuple[Tensor, Tensor | None]:
        problem = Reconstruction.of(layer)
        found = learn(problem, self.iterations, self.learning_rate, self.seed)
        return found.reshape(layer.weight.shape), layer.bias
