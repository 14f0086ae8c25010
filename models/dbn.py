"""The deep belief network: a stack of restricted Boltzmann machines, then a classifier.

Source: Hinton, Osindero, Teh, "A fast learning algorithm for deep belief nets", Neural
Computation 18, 2006, section 4 (greedy training); Hinton, "Training products of experts by
minimizing contrastive divergence", 2002, section 3 (CD-1). Fine-tuning by back-propagation as in
Hinton, Salakhutdinov, "Reducing the dimensionality of data with neural networks", 2006.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgedl.runtime.progress import SILENT, Progress

LEARNING_RATE = 0.05
MOMENTUM = 0.5
WEIGHT_DECAY = 2e-4
BATCH_SIZE = 128


class DeepBeliefNetwork(nn.Module):
    """Logistic layers [N, C, H, W] -> hidden sizes -> [N, classes]."""

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 10,
        hidden: tuple[int, ...] = (400, 400),
        image_size: int = 28,
    ) -> None:
        """Build the layers for square pictures of ``image_size`` pixels, weights near zero."""
        super().__init__()
        self.flatten = nn.Flatten()
        sizes = (in_channels * image_size**2, *hidden)
        layers = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.fc = nn.Linear(hidden[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        x = self.flatten(x)
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        logits: Tensor = self.fc(x)
        return logits


def pretrain(
    network: DeepBeliefNetwork,
    images: Tensor,
    epochs: int,
    generator: torch.Generator,
    progress: Progress = SILENT,
) -> None:
    """Train the hidden layers in place, each as a restricted Boltzmann machine on the one below.

    Args:
        network: with fresh weights.
        images: float32 [N, C, H, W], 0..1, read as probabilities of binary pixels.
        epochs: passes per layer.
        generator: fixes order and samples.
        progress: says the mean squared reconstruction error of every epoch.
    """
    data = images.flatten(1).to(network.fc.weight.device)
    with torch.no_grad():
        for number, layer in enumerate(network.layers, start=1):
            if not isinstance(layer, nn.Linear):
                raise TypeError(f"layer {number} is {type(layer).__name__}, expected Linear")
            machine = BoltzmannMachine(layer)
            for epoch in range(1, epochs + 1):
                order = torch.randperm(len(data), generator=generator)
                errors = [
                    machine.learn(data[picked], generator) for picked in order.split(BATCH_SIZE)
                ]
                error = sum(errors) / len(errors)
                where = f"layer {number}, epoch {epoch}/{epochs}"
                progress.note(f"pre-training {where}: error {error:.4f}")
            data = torch.sigmoid(layer(data))


class BoltzmannMachine:
    """A restricted Boltzmann machine whose weights and hidden biases are a linear layer's."""

    def __init__(self, layer: nn.Linear) -> None:
        """Start with visible biases and velocities at zero."""
        self.weight, self.hidden_bias = layer.weight, layer.bias
        self.visible_bias = torch.zeros(layer.in_features, device=layer.weight.device)
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        self._velocities = [torch.zeros_like(p) for p in parameters]

    def learn(self, visible: Tensor, generator: torch.Generator) -> float:
        """Take one step of contrastive divergence (CD-1) on a batch of probabilities [B, V].

        Returns:
            Mean squared error of the reconstruction.
        """
        hidden = torch.sigmoid(visible @ self.weight.T + self.hidden_bias)
        # Drawn on the CPU, where the generator is: the same on every device but for rounding.
        sampled = torch.bernoulli(hidden.cpu(), generator=generator).to(hidden.device)
        seen = torch.sigmoid(sampled @ self.weight + self.visible_bias)
        again = torch.sigmoid(seen @ self.weight.T + self.hidden_bias)
        count = len(visible)
        gradients = (
            (hidden.T @ visible - again.T @ seen) / count - WEIGHT_DECAY * self.weight,
            (hidden - again).mean(0),
            (visible - seen).mean(0),
        )
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        for parameter, velocity, gradient in zip(
            parameters, self._velocities, gradients, strict=True
        ):
            velocity.mul_(MOMENTUM).add_(gradient)
            parameter.add_(LEARNING_RATE * velocity)
        return float(((visible - seen) ** 2).mean())
