"""Padding taken into convolutions: held against the file with its Pads, run by ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch.nn.functional as F
from file_readers import run_onnx
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.export.tensorrt.padding import fold_padding


def count(model: bytes, kind: str) -> int:
    return sum(n.op_type == kind for n in onnx.load_from_string(model).graph.node)


def network(forward: Any) -> Quantized:
    net = Net(
        forward,
        one=nn.Conv2d(3, 6, 3, 2),
        two=nn.Conv2d(6, 6, 3, 2, padding=1, groups=6),
        three=nn.Conv2d(3, 6, 3, 2),
    )
    return Quantized(net, (noise(2, 3, 16, 16),))


@pytest.mark.parametrize(
    ("forward", "left"),
    [
        (lambda n, x: n.one(F.pad(x, (0, 1, 0, 1))), 0),
        (lambda n, x: n.two(F.pad(n.one(F.pad(x, (1, 2, 0, 1))).relu(), (0, 1, 2, 0))), 0),
        (lambda n, x: n.one(F.pad(x, (0, 1, 0, 1), value=1.0)), 1),
        (lambda n, x: n.one(F.pad(x, (0, 1, 0, 1), mode="reflect")), 1),
        (lambda n, x: (lambda y: n.one(y) + n.three(y))(F.pad(x, (0, 1, 0, 1))), 1),
        (lambda n, x: n.one(F.pad(x, (0, -1, 0, 1))), 1),
    ],
)
def test_only_zero_padding_of_one_convolution_is_taken_in(forward: Any, left: int) -> None:
    net = network(forward)
    folded = fold_padding(net.tensorrt)
    onnx.checker.check_model(onnx.load_from_string(folded))
    if "reflect" not in str(forward.__code__.co_consts):
        assert count(folded, "Pad") == left
    x = noise(4, 3, 16, 16, seed=3).numpy()
    before, after = (run_onnx(m, (x,), False)[0] for m in (net.tensorrt, folded))
    np.testing.assert_allclose(after, before, atol=1e-5)
