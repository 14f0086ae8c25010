"""The stage that makes weights larger where activations are, before they are rounded to 4 bits."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.clipping import WeightObserver
from edgedl.compress.encodings.grouped import fitting_group, group_scales, round_to_groups
from edgedl.compress.graph.edit import copy_graph, finish
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.normalization import LAYER_NORM
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.quantize.corrections.channel_paths import (
    check_same,
    own_parameters,
    scale_inputs,
    weight_of,
)
from edgedl.compress.quantize.corrections.channel_readers import (
    Readers,
    divide_outputs,
    find_readers,
    weighted_layers,
)
from edgedl.compress.quantize.corrections.input_products import input_products
from edgedl.compress.quantize.corrections.rounding import LARGEST
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import SHARED_WEIGHTS, ModelState, Trait
from edgedl.compress.subject.calibration import calibration_inputs

# Values of alpha that are tried, from 0 to 1.
STEPS = 20


class ScaleWeights(Stage, frozen=True, tag="scale_weights"):
    """Activation-aware weight quantization (AWQ), the scaling before ``quantize_weights``.

    A weight whose input is large does more harm when it is rounded. Each input channel of a linear
    layer is multiplied by a factor, and what produces it divided: exact but for float rounding.
    The factor is the channel's magnitude to the power of alpha. Of 21 alphas each norm or layer
    takes the one with the least squared error of the outputs behind it; 0 leaves them as they are.
    The producers are those of ``smooth``. It helps where a few channels of activations are far
    larger than the others, as behind the norms of transformers, and does little elsewhere.

    Source: Lin et al., "AWQ: activation-aware weight quantization for on-device LLM compression and
    acceleration", 2023, section 3.2, equations 4 and 5. There a channel's magnitude is its mean;
    here it is the root of its mean square, which the error is computed from anyhow.

    Attributes:
        bits: of the weights afterwards, as ``quantize_weights`` has it.
        group_size: the same.
        weight_observer: the same.
        samples: calibration samples; memory does not grow with them.
        batch_size: samples per forward pass.
    """

    undoes: ClassVar[frozenset[Trait]] = frozenset({SHARED_WEIGHTS})

    bits: Literal[4, 8] = 4
    group_size: Literal[32, 64, 128] | None = 32
    weight_observer: WeightObserver = "mse"
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Rewrite the float network.

        Raises:
            BadInputError: there is no calibration data.
            NotEquivalentError: float32 cannot hold the scaled weights.
        """
        graph = copy_graph(state.graph)
        readers = _linear_readers(graph)
        if not readers:
            state.progress.note(
                "scale_weights: no norm or layer can be divided by a factor, the network "
                "is unchanged"
            )
        own_parameters(graph, weighted_layers(readers))

        def batches() -> Iterable[tuple[Tensor, ...]]:
            return calibration_inputs(state.subject.task, self.samples, self.batch_size)

        # The layers behind one norm read the same values.
        products = input_products(graph, [layers[:1] for layers in readers.values()], batches)
        found: list[str] = []
        for (producer, layers), moments in zip(readers.items(), products, strict=True):
            weights = [weight_of(graph, layer) for layer in layers]
            alpha, factor = self._best(weights, moments, _channels(graph, producer, moments))
            divide_outputs(graph, producer, factor)
            for layer in layers:
                scale_inputs(graph, layer, factor)
                found.append(f"{layer_name(layer) or layer.name}={alpha:g}")
        scaled = finish(graph)
        check_same(state.graph, scaled, next(iter(batches())), self.name)
        return replace(state, graph=scaled), {"alphas": tuple(found)}

    def _best(
        self, weights: Sequence[Tensor], moments: Tensor, channels: int
    ) -> tuple[float, Tensor]:
        """Return the alpha of the least error, and its factor of each channel of the producer."""
        tried = []
        for step in range(STEPS + 1):
            factor = scaling_factor(moments, channels, step / STEPS)
            error = sum(self._error(weight, moments, factor) for weight in weights)
            tried.append((error, step / STEPS, factor))
        _, alpha, factor = min(tried, key=lambda found: found[:2])
        return alpha, factor

    def _error(self, weight: Tensor, moments: Tensor, factor: Tensor) -> float:
        """Return the mean squared error of a layer's outputs, summed over them."""
        wide = factor.repeat_interleave(weight.shape[1] // len(factor))
        scaled = weight * wide
        size = fitting_group(weight.shape[1], self.group_size)
        scales = group_scales(scaled, size, self.bits, self.weight_observer)
        rounded = round_to_groups(scaled, scales, self.bits).dequantized() / wide
        difference = (rounded - weight).double()
        return float(((difference @ moments) * difference).sum())


def scaling_factor(moments: Tensor, channels: int, alpha: float) -> Tensor:
    """Return the magnitude of each channel to the power of alpha, float32 [channels].

    The geometric mean of its ends is 1, as the authors' code has it. A channel without any
    activation stays as it is.

    Args:
        moments: mean products of the inputs, float64 [K, K]; a channel has a run of them.
        channels: that divide K.
        alpha: 0 to 1.
    """
    squares = moments.diagonal().view(channels, -1).mean(1)
    factor = torch.where(squares > 0, squares.sqrt(), 1.0).pow(alpha)
    factor = factor / (factor.max() * factor.min()).sqrt()
    return torch.where(squares > 0, factor, 1.0).float()


def _linear_readers(graph: fx.GraphModule) -> Readers:
    """Return what can be divided, where linear layers of not too many inputs read it."""

    def fits(layer: fx.Node) -> bool:
        return row_of(layer) is LINEAR and weight_of(graph, layer).shape[1] <= LARGEST

    return {p: found for p, found in find_readers(graph.graph).items() if all(map(fits, found))}


def _channels(graph: fx.GraphModule, producer: fx.Node, moments: Tensor) -> int:
    """Return the channels of a producer; those of a convolution may be flattened behind it."""
    return len(moments) if row_of(producer) is LAYER_NORM else len(weight_of(graph, producer))
