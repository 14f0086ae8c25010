"""Networks whose channels differ in size on purpose, and how far quantizing puts them off."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from small_networks import Net, noise, noise_task
from torch import Tensor, nn

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import Subject

SHAPE = (3, 8, 8)


def uneven(first: nn.Module, second: nn.Module, blocks: int = 1) -> None:
    """Multiply channels of one layer by 2^-4 to 2^4, and divide the next layer's inputs by it."""
    factor = 2.0 ** torch.linspace(-4, 4, len(first.weight))
    factor = factor[torch.randperm(len(factor), generator=torch.Generator().manual_seed(3))]
    with torch.no_grad():
        first.weight.mul_(factor.view(-1, *[1] * (first.weight.ndim - 1)))
        first.bias.mul_(factor)
        if getattr(second, "groups", 1) > 1:
            second.weight.div_(factor.view(-1, 1, 1, 1))
        else:
            per_input = factor.repeat_interleave(blocks)
            second.weight.div_(per_input.view(1, -1, *[1] * (second.weight.ndim - 2)))


def chain() -> nn.Module:
    """Build convolution, depthwise, convolution, pool, linear, linear, all uneven."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.relu(net.depthwise(F.relu(net.first(x))))
        x = F.max_pool2d(net.second(x), 2).flatten(1)
        return net.fc2(F.relu(net.fc1(x)))

    torch.manual_seed(2)
    net = Net(
        forward,
        first=nn.Conv2d(3, 16, 3, padding=1),
        depthwise=nn.Conv2d(16, 16, 3, padding=1, groups=16),
        second=nn.Conv2d(16, 12, 1),
        fc1=nn.Linear(12 * 16, 10),
        fc2=nn.Linear(10, 4),
    )
    uneven(net.first, net.depthwise)
    uneven(net.depthwise, net.second)
    uneven(net.second, net.fc1, 16)
    uneven(net.fc1, net.fc2)
    return net.eval()


def state_of(net: nn.Module, *shapes: tuple[int, ...]) -> ModelState:
    subject = Subject("uneven", net, noise_task(*(shapes or (SHAPE,))))
    return begin(subject)


def decibels(state: ModelState, exact: nn.Module, *shape: int) -> float:
    """Return the signal to quantization noise ratio on new data."""
    x = noise(200, *(shape or SHAPE), seed=77)
    with torch.no_grad():
        expected = as_tuple(exact(x))[0].numpy()
    network = state.quantized
    found = Simulation(network.graph, network.encodings)(x)[0].numpy()
    return float(10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()))


def same_function(a: nn.Module, b: nn.Module, *shape: int) -> float:
    """Return the largest difference on new data, as a share of the largest output."""
    x = noise(50, *(shape or SHAPE), seed=78)
    with torch.no_grad():
        first, second = as_tuple(a(x))[0], as_tuple(b(x))[0]
    return float((first - second).abs().max() / first.abs().max())
