"""A padding in front of a convolution is part of it, on every runtime that can."""

import numpy as np
import pytest
import torch.nn.functional as F
from file_readers import TFLiteFile
from small_networks import Net, Quantized, noise
from torch import Tensor, nn

from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.export.tflite.padding import absorb_padding, same_padding
from edgedl.compress.targets.named import ORT, TFLITE

BOTTOM_RIGHT, TOP_LEFT = (0, 1, 0, 1), (1, 0, 1, 0)


def strided(widths: tuple[int, ...]) -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        x = F.relu6(m.first(x))
        x = F.relu6(m.depthwise(F.pad(x, widths)))
        return m.last(F.pad(x, widths)).mean((2, 3))

    return Net(
        forward,
        first=nn.Conv2d(3, 8, 1),
        depthwise=nn.Conv2d(8, 8, 3, stride=2, groups=8),
        last=nn.Conv2d(8, 4, 3, stride=2),
    ).eval()


@pytest.mark.slow
@pytest.mark.parametrize("widths", [BOTTOM_RIGHT, TOP_LEFT])
def test_no_transposition_is_left_around_a_padding(widths: tuple[int, ...]) -> None:
    made = Quantized(strided(widths), (noise(16, 3, 16, 16),))
    file = TFLiteFile(made.tflite, xnnpack=False)
    assert file.operators["TRANSPOSE"] == 1
    # Only a padding at the bottom and right is the one that the runtime knows.
    assert file.operators["PAD"] == (0 if widths == BOTTOM_RIGHT else 2)
    assert absorb_padding(made.tflite) == made.tflite
    (expected,) = made.outputs(made.emitted(TFLITE))
    (found,) = TFLiteFile(made.tflite).run(made.arrays)
    assert np.abs(found - expected).max() <= 1.01 * made.steps[0]
    assert np.abs(found - expected).mean() <= 0.1 * made.steps[0]


def test_no_padding_computes_in_float_on_onnx_runtime() -> None:
    made = Quantized(strided(BOTTOM_RIGHT), (noise(16, 3, 16, 16),))
    assert exporter_of(ORT).float_operators(made.onnx) == []


@pytest.mark.parametrize("size", range(5, 13))
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 2, 2)]
)
def test_same_padding_gives_one_output_per_stride(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    before, after = same_padding(size, kernel, stride, dilation)
    padded = np.arange(size + before + after - (kernel - 1) * dilation)
    assert len(padded[::stride]) == -(-size // stride)
    assert after - before in (0, 1)
