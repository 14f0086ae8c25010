"""A convolutional network of spiking neurons, unrolled over a fixed number of time steps.

Source: Neftci, Mostafa, Zenke, "Surrogate gradient learning in spiking neural networks", 2019
(arXiv:1901.09948): the neuron, here without leak, as a step of a recurrent network, and surrogate
gradients; Fang et al., "Incorporating learnable membrane time constant to enhance learning of
spiking neural networks", 2021 (arXiv:2007.05785), figure 4: convolutions with batch norm, neurons
and maximum pooling of spikes; the picture as a constant input current; the mean over time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Spike(torch.autograd.Function):
    """A step whose derivative is that of atan(pi x) / pi: 1 / (1 + (pi x)^2).

    Source: Fang et al. 2021.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Map any shape to 1.0 where x >= 0, else 0.0."""
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the surrogate gradient of ``x``."""
        (x,) = ctx.saved_tensors
        surrogate: Tensor = gradients[0] / (1 + (torch.pi * x) ** 2)
        return surrogate


class IntegrateAndFire(nn.Module):
    """Neurons that add up their input; at the threshold 1 they spike, and lose 1."""

    def forward(self, currents: list[Tensor]) -> list[Tensor]:
        """Map the input currents of all time steps, one shape, to spikes 0.0 or 1.0."""
        potential = currents[0]
        spikes = [self._fire(potential)]
        for current in currents[1:]:
            potential = potential - spikes[-1] + current
            spikes.append(self._fire(potential))
        return spikes

    def _fire(self, potential: Tensor) -> Tensor:
        if self.training:
            spike: Tensor = Spike.apply(potential - 1)
            return spike
        # The same without a gradient: plain operators, which every runtime has.
        return (potential >= 1).to(potential.dtype)


class SpikingNetwork(nn.Module):
    """Convolutions and a linear layer of spiking neurons; the classes are read from their rates.

    [N, C, H, W] -> current [N, c1, H, W] -> spikes pooled [N, c1, H/2, W/2], T times -> [N, c2,
    H/4, W/4], T times -> [N, hidden], T times -> rates [N, hidden] -> [N, classes].

    Tracing sees a network in evaluation, in which a spike has no gradient: stages of a recipe that
    train (fine-tuning, quantization-aware training) reach the last layer alone.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 10,
        channels: tuple[int, int] = (16, 32),
        hidden: int = 128,
        image_size: int = 28,
        steps: int = 4,
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            channels: of the two convolutions.
            hidden: neurons of the linear layer.
            image_size: height and width of the picture.
            steps: time steps T of a picture.
        """
        super().__init__()
        first, second = channels
        self.steps = steps
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        self.fc1 = nn.Linear(second * (image_size // 4) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        self.fire = IntegrateAndFire()

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        spikes = self.fire([self.norm1(self.conv1(x))] * self.steps)
        spikes = self.fire([self.norm2(self.conv2(F.max_pool2d(s, 2))) for s in spikes])
        spikes = self.fire([self.fc1(F.max_pool2d(s, 2).flatten(1)) for s in spikes])
        logits: Tensor = self.fc2(sum(spikes[1:], spikes[0]) / self.steps)
        return logits
