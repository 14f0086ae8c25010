"""The stage that learns how to round the weights of a quantized network."""

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta
from torch import Tensor

from edgedl.compress.estimate import Work
from edgedl.compress.quantize.corrections.adaround import Reconstruction, learn
from edgedl.compress.quantize.corrections.layerwise import Layer, correct_layers
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs


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

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Replace the weights of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = self.network(state)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        corrected = correct_layers(quantized.graph, quantized.encodings, batches, self._learn)
        return replace(state, quantized=corrected), {}

    def work(self, state: ModelState) -> Work:
        """Count the steps of Adam."""
        return Work(self.iterations, lambda n: msgspec.structs.replace(self, iterations=n))

    def _learn(self, layer: Layer) -> tuple[Tensor, Tensor | None]:
        problem = Reconstruction.of(layer)
        found = learn(problem, self.iterations, self.learning_rate, self.seed)
        return found.reshape(layer.weight.shape), layer.bias
