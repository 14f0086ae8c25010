"""Learn for every weight of a layer whether it is rounded up or down.

Source: Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import WEIGHT_QMAX
from edgedl.compress.encodings.placement import activation_bounds, fused_activation
from edgedl.compress.graph.operators.table import groups_of
from edgedl.compress.quantize.corrections.layerwise import Layer
from edgedl.compress.quantize.corrections.moments import patches

# Stretch of the sigmoid (section 3.2): beyond its ends the gradient still reaches 0 and 1.
ZETA, GAMMA = 1.1, -0.1
# Weight of the regularizer; its exponent falls from the first to the last after the warm-up.
PENALTY = 0.01
BETA = 20.0, 2.0
WARM_UP = 0.2
# Output positions of a layer that are looked at, over all samples: so many per weight of an output,
# within bounds; and at a time.
COLUMNS_PER_WEIGHT = 64
FEWEST_COLUMNS, MOST_COLUMNS = 2**11, 2**14
MINIBATCH = 256

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reconstruction:
    """One layer's problem: find the rounding whose activated outputs are the float layer's.

    Attributes:
        weight: float32 [groups, C_out / groups, K].
        step: of its grid, float32 [groups, C_out / groups, 1].
        bias: float32 [groups, C_out / groups, 1].
        activate: the activation fused behind the layer.
        inputs: columns that the quantized layer reads, float32 [groups, K, P].
        targets: activated outputs of the float layer there, float32 [groups, C_out / groups, P].
        qmax: largest integer of the weight.
    """

    weight: Tensor
    step: Tensor
    bias: Tensor
    activate: Activation
    inputs: Tensor
    targets: Tensor
    qmax: int = WEIGHT_QMAX

    @classmethod
    def of(cls, layer: Layer) -> "Reconstruction":
        """Draw columns from a layer's inputs, the same ones each time."""
        groups = groups_of(layer.node)
        weight = layer.weight.reshape(groups, -1, layer.weight[0].numel())
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        bias = bias.reshape(groups, -1, 1)
        activate = activation_of(layer)
        wanted = min(max(COLUMNS_PER_WEIGHT * weight.shape[2], FEWEST_COLUMNS), MOST_COLUMNS)
        share = max(1, wanted // max(1, len(layer.inputs)))
        inputs, targets = [], []
        for exact, rounded in zip(layer.float_inputs, layer.inputs, strict=True):
            targets.append(activate(weight @ patches(layer, exact, share) + bias))
            inputs.append(patches(layer, rounded, share).contiguous())
        step = layer.scales.reshape(groups, -1, 1)
        columns, outputs = torch.cat(inputs, 2), torch.cat(targets, 2)
        return cls(weight, step, bias, activate, columns, outputs, layer.qmax)

    def error(self, weight: Tensor) -> Tensor:
        """Return the mean squared error that a weight gives each output [groups, outputs]."""
        difference = self.activate(weight @ self.inputs + self.bias) - self.targets
        return difference.square().mean(2)

    def parts(self) -> "list[Reconstruction]":
        """Return the problem on about ``MINIBATCH`` columns at a time, together all of them.

        Every n-th column, some of every batch: to gather columns anew in every step takes longer
        than all else, since they lie far apart in memory.
        """
        count = max(1, self.inputs.shape[2] // MINIBATCH)
        return [
            replace(
                self,
                inputs=self.inputs[:, :, first::count].contiguous(),
                targets=self.targets[:, :, first::count].contiguous(),
            )
            for first in range(count)
        ]


def activation_of(layer: Layer) -> Activation:
    """Return the activation that is folded into a layer, the identity if there is none."""
    node = fused_activation(layer.node)
    if node is None:
        return lambda x: x
    lo, hi = activation_bounds(node)
    return lambda x: x.clamp(lo, hi)


def learn(problem: Reconstruction, iterations: int, learning_rate: float, seed: int) -> Tensor:
    """Return a rounded weight, each value up or down, as learned; float32 as the problem's.

    An output that the nearest weights serve better keeps those.

    Source: section 3.2 and 3.3, equations 21 to 25: the asymmetric reconstruction with the
    activation, on the inputs that the quantized layers before compute.
    """
    generator = torch.Generator().manual_seed(seed)
    rounding = SoftRounding(problem.weight, problem.step, problem.qmax)
    optimizer = torch.optim.Adam([rounding.logits], lr=learning_rate)
    parts = problem.parts()
    with torch.enable_grad():
        for iteration in range(iterations):
            part = parts[int(torch.randint(len(parts), (), generator=generator))]
            loss = part.error(rounding.weight()).sum() + rounding.penalty(iteration / iterations)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    learned, nearest = rounding.learned(), rounding.nearest()
    better = problem.error(learned) < problem.error(nearest)
    return torch.where(better[:, :, None], learned, nearest)


class SoftRounding:
    """A weight between its grid's points: each value has a share of the way from down to up.

    It starts as the float weight. A weight of 0 stays 0.

    Source: section 3.2, equations 22 to 24.

    Attributes:
        logits: V, float32 of the weight's shape; what is learned.
    """

    def __init__(self, weight: Tensor, step: Tensor, qmax: int) -> None:
        """Start from the float weight.

        Args:
            weight: float32.
            step: of its grid, of a shape that broadcasts to the weight.
            qmax: largest integer.
        """
        self._whole, self._step, self._qmax = weight / step, step, qmax
        self._down = self._whole.floor()
        self._movable = self._whole != 0
        self.logits = initial_logits(self._whole - self._down).requires_grad_()

    def weight(self) -> Tensor:
        """Return the weight as it is now, float32, with gradients."""
        return self._weight_of(self._down + self._shares())

    def penalty(self, progress: float) -> Tensor:
        """Return what pulls shares to 0 and 1, ever harder, float32 [].

        Args:
            progress: share of all steps that are done.
        """
        shares = self._shares()
        if progress < WARM_UP:
            return shares.new_zeros(())
        first, last = BETA
        beta = last + (first - last) * (1 - (progress - WARM_UP) / (1 - WARM_UP))
        return PENALTY * (1 - (2 * shares - 1).abs().pow(beta)).sum()

    @torch.no_grad()
    def learned(self) -> Tensor:
        """Return the weight with every share rounded to 0 or 1."""
        return self._weight_of(
            self._down + ((rectified_sigmoid(self.logits) >= 0.5) & self._movable)
        )

    def nearest(self) -> Tensor:
        """Return the weight with every value rounded to its nearest point."""
        return self._weight_of(self._whole.round())

    def _shares(self) -> Tensor:
        return rectified_sigmoid(self.logits) * self._movable

    def _weight_of(self, integers: Tensor) -> Tensor:
        """Return what integers stand for, those beyond the grid's ends pulled to them."""
        return integers.clamp(-self._qmax, self._qmax) * self._step


def rectified_sigmoid(logits: Tensor) -> Tensor:
    """Return h(V), from 0 (rounded down) to 1 (rounded up). Source: equation 23."""
    return (logits.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def initial_logits(share: Tensor) -> Tensor:
    """Return the V with h(V) = share, for shares in [0, 1): it starts from the float weight."""
    return torch.logit((share - GAMMA) / (ZETA - GAMMA))
