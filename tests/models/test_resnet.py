"""ResNet-8 against numpy, and its size added up by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.models.resnet import BasicBlock, ResNet8


def convolve(x, layer):
    """x [C, H, W] -> [K, H / stride, W / stride]."""
    weights = layer.weight.detach().numpy()
    pad, stride = layer.padding[0], layer.stride[0]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weights.shape[2:], (1, 2))
    return np.einsum("chwij,kcij->khw", windows[:, ::stride, ::stride], weights)


def normalize(x, norm):
    mean, var, weight, bias = (
        t.detach().numpy()[:, None, None]
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def run_block(x, block):
    y = np.maximum(normalize(convolve(x, block.conv1), block.bn1), 0)
    y = normalize(convolve(y, block.conv2), block.bn2)
    shortcut = convolve(x, block.shortcut) if isinstance(block.shortcut, nn.Conv2d) else x
    return np.maximum(y + shortcut, 0)


def with_statistics(module):
    """Give every batch norm values that a mistake would show."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, lo, hi in (
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 2.0),
                (part.weight.data, 0.5, 1.5),
                (part.bias.data, -0.3, 0.3),
            ):
                tensor.uniform_(lo, hi)
    return module.eval()


@pytest.mark.parametrize(("wide_in", "wide_out", "stride"), [(4, 4, 1), (4, 6, 2), (4, 4, 2)])
def test_block_against_numpy(wide_in, wide_out, stride):
    block = with_statistics(BasicBlock(wide_in, wide_out, stride))
    x = torch.randn(1, wide_in, 8, 8)
    with torch.no_grad():
        found = block(x)[0].numpy()
    assert found.shape == (wide_out, 8 // stride, 8 // stride)
    np.testing.assert_allclose(found, run_block(x[0].numpy(), block), atol=1e-4)


def test_network_against_numpy():
    net = with_statistics(ResNet8())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = net(x).numpy()
    for image, logits in zip(x.numpy(), found, strict=True):
        y = np.maximum(normalize(convolve(image, net.conv), net.bn), 0)
        for block in (net.stack1, net.stack2, net.stack3):
            y = run_block(y, block)
        assert y.shape == (64, 8, 8)
        weights, bias = (p.detach().numpy() for p in (net.fc.weight, net.fc.bias))
        np.testing.assert_allclose(logits, weights @ y.mean((1, 2)) + bias, atol=1e-4)


def test_size_added_up_by_hand():
    stem = 3 * 16 * 9 + 2 * 16
    stack1 = 2 * (16 * 16 * 9 + 2 * 16)
    stack2 = 16 * 32 * 9 + 32 * 32 * 9 + 2 * 2 * 32 + 16 * 32
    stack3 = 32 * 64 * 9 + 64 * 64 * 9 + 2 * 2 * 64 + 32 * 64
    classifier = 64 * 10 + 10
    total = stem + stack1 + stack2 + stack3 + classifier
    assert sum(p.numel() for p in ResNet8().parameters()) == total == 77_850


@pytest.mark.parametrize(("channels", "classes", "side"), [(3, 10, 32), (1, 10, 28), (3, 7, 48)])
def test_channels_classes_and_sizes(channels, classes, side):
    net = ResNet8(channels, classes).eval()
    assert net(torch.zeros(2, channels, side, side)).shape == (2, classes)
