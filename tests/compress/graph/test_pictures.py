"""Which inputs and outputs are pictures: those beside operators over places, and no others."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import Tensor, nn

from edgedl.compress.graph.pictures import Pictures
from edgedl.compress.graph.trace import trace

CONV = nn.Conv2d(3, 3, 3, padding=1)
PICTURE = (4, 3, 8, 8)


def found(forward: Callable[[Net, Tensor], object], shape: tuple[int, ...] = PICTURE) -> Pictures:
    inputs = (noise(*shape),)
    net = Net(forward, conv=CONV, linear=nn.Linear(8, 8), deep=nn.Conv1d(3, 3, 1)).eval()
    return Pictures.of(trace(net, inputs))


@pytest.mark.parametrize(
    ("forward", "inputs", "outputs"),
    [
        (lambda m, x: m.conv(x).mean((2, 3)), {0}, ()),
        (lambda m, x: m.conv((x - 0.4) / 0.2), {0}, {0}),
        (lambda m, x: (F.max_pool2d(x, 2), m.conv(x).flatten(1)), {0}, {0}),
        (lambda m, x: m.conv(torch.cat([x, x.abs()], 1)[:, :3]).softmax(1), (), {0}),
        (lambda m, x: F.relu(m.conv(F.pad(x, (1, 1, 1, 1)))) * 2.0, {0}, {0}),
        # The network turns its channels to the end itself, and back.
        (lambda m, x: m.linear(x.permute(0, 2, 3, 1).mT).mean((1, 2)), {0}, ()),
        (lambda m, x: F.interpolate(x, scale_factor=2.0), {0}, {0}),
    ],
)
def test_pictures_and_maps(forward, inputs, outputs) -> None:
    assert found(forward) == Pictures(frozenset(inputs), frozenset(outputs))


@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (lambda m, x: m.linear(x), PICTURE),
        (lambda m, x: x.flatten(1), PICTURE),
        # Attention: heads are no channels of a map.
        (lambda m, x: (x @ x.mT).softmax(-1) @ x, PICTURE),
        (lambda m, x: m.deep(x), (4, 3, 8)),
        (lambda m, x: m.conv(x.view(-1, 3, 8, 8)).flatten(1).view(-1, 2, 3, 32), (4, 3, 64)),
    ],
)
def test_what_is_no_picture(forward, shape) -> None:
    assert found(forward, shape) == Pictures()


def test_several_inputs_and_outputs_are_told_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 2, 3), nn.Linear(5, 2)

        def forward(self, series: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(picture)
            return self.linear(series) + y.mean((2, 3)), y

    graph = trace(Two().eval(), (noise(2, 5), noise(2, 3, 8, 8)))
    assert Pictures.of(graph) == Pictures(frozenset({1}), frozenset({1}))
