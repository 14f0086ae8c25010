"""What is computed for roots, logarithms and denominators stays float."""

from typing import Any

import numpy as np
import pytest
import torch
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.encodings.magnitudes import before_expansions
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT, TFLITE


def network(forward: Any) -> nn.Module:
    torch.manual_seed(0)
    return Net(forward, re=nn.Linear(6, 8), im=nn.Linear(6, 8), head=nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("forward", "kept"),
    [
        (lambda n, x: n.head((n.re(x) ** 2 + n.im(x) ** 2 + 1e-9).sqrt()), 4),
        (lambda n, x: n.head((n.re(x).abs() + 1).log()), 1),
        (lambda n, x: n.head(n.re(x) / (n.im(x) ** 2 + 1)), 2),
        (lambda n, x: n.head(n.re(x) * n.im(x)), 0),
        (lambda n, x: n.head(n.re(x) / 3), 0),
    ],
)
def test_the_chain_back_to_the_products_is_float(forward: Any, kept: int) -> None:
    assert len(before_expansions(trace(network(forward), (noise(2, 6),)).graph)) == kept


@pytest.mark.parametrize("target", [ORT, TFLITE])
def test_quiet_samples_keep_their_magnitudes(target: Any) -> None:
    module = network(lambda n, x: n.head((n.re(x) ** 2 + n.im(x) ** 2).sqrt()))
    module.re.bias.data.zero_()
    module.im.bias.data.zero_()
    x = noise(64, 6)
    x[:32] /= 5
    net = Quantized(module, (x,))
    found, wanted = (run_graph(g, net.arrays)[0] for g in (net.emitted(target), net.graph))
    quiet = found[:32] - wanted[:32]
    assert 10 * np.log10(np.square(wanted[:32]).sum() / np.square(quiet).sum()) > 18
