"""Operators whose int8 kernels are slow: others in the file, that compute the same."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.export.tflite.clips import BOUNDS, clip_in_xnnpack
from edgedl.compress.export.tflite.file import TfliteFile
from edgedl.compress.export.tflite.float_kernels import KINDS, compute_in_float
from edgedl.compress.graph.run import run_graph
from edgedl.compress.targets.named import TFLITE


def quantized(operator: Callable, channels: int = 4) -> Quantized:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: net.b(operator(net.a(x))),
        a=nn.Conv2d(4, 4, 3, padding=1),
        b=nn.Conv2d(channels, 4, 1),
    )
    return Quantized(net, (noise(40, 4, 6, 6),))


def kinds(model: bytes) -> Counter[str]:
    """Count the operators of a file."""
    file = TfliteFile(model)
    names = {v: k for k, v in vars(file.schema.BuiltinOperator).items() if isinstance(v, int)}
    codes = [file.model.operatorCodes[op.opcodeIndex] for op in file.graph.operators]
    return Counter(names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in codes)


def errors(net: Quantized) -> np.ndarray:
    """Return the differences from the emitted graph, in steps of the output."""
    found = TFLiteFile(net.tflite).run(net.arrays)[0]
    expected = run_graph(net.emitted(TFLITE), net.arrays)[0]
    return np.abs(found - expected) / net.steps[0]


CLIPS: dict[str, tuple[Callable, int, dict[str, int]]] = {
    # To a grid that begins at 0.
    "beside": (lambda x: x + F.max_pool2d(F.relu(x), 3, 1, 1), 4, {"QUANTIZE": 1}),
    # To the grid of a concat, which goes below.
    "joined": (lambda x: torch.cat([F.relu(x), x], 1), 8, {"MAXIMUM": 1}),
    "joined, from another grid": (
        lambda x: torch.cat([F.relu(x), 9 * F.leaky_relu(x)], 1),
        8,
        {"QUANTIZE": 1, "MAXIMUM": 1},
    ),
    "of six": (lambda x: F.relu6(9 * x) - 1, 4, {}),
    "of six, joined": (
        lambda x: torch.cat([F.relu6(x), 9 * F.leaky_relu(x)], 1),
        8,
        {"QUANTIZE": 1, "MAXIMUM": 1, "MINIMUM": 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "channels", "expected"), CLIPS.values(), ids=CLIPS)
def test_a_relu_of_its_own_is_what_xnnpack_has(
    operator: Callable, channels: int, expected: dict[str, int]
) -> None:
    net = quantized(operator, channels)
    found = kinds(net.tflite)
    assert not set(BOUNDS) & set(found)
    assert {kind: found[kind] for kind in expected} == expected
    assert errors(net).max() <= 3
    assert errors(net).mean() < 0.2


@pytest.mark.slow
def test_a_relu_that_is_folded_stays_folded() -> None:
    found = kinds(quantized(F.relu).tflite)
    assert not {*BOUNDS, "QUANTIZE", "MAXIMUM"} & set(found)


FLOATS: dict[str, Callable] = {
    "ABS": lambda x: x.abs(),
    "EXP": lambda x: torch.exp(-x.abs()),
    "DIV": lambda x: x / (1 + x.sigmoid()),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOATS)
def test_slow_integers_are_floats(kind: str) -> None:
    net = quantized(FLOATS[kind])
    file = TfliteFile(net.tflite)
    operators = file.operators(kind)
    assert operators
    for operator in operators:
        types = {file.graph.tensors[i].type for i in (*operator.inputs, *operator.outputs)}
        assert types == {file.schema.TensorType.FLOAT32}
    assert errors(net).max() <= 3
    assert errors(net).mean() < 0.5


@pytest.mark.slow
def test_a_file_without_them_comes_back_as_it_is() -> None:
    model = quantized(F.relu).tflite
    assert clip_in_xnnpack(model) is model
    assert compute_in_float(model) is model
    assert set(FLOATS) == set(KINDS)
