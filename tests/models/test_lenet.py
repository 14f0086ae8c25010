"""LeNet-5 against numpy and against its published size."""

import numpy as np
import pytest
import torch

from edgedl.models.lenet import LeNet5


def convolve(x, layer, padding):
    """x [C, H, W] -> [K, H', W'], one output channel at a time."""
    weights, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weights.shape[2:], (1, 2))
    return (
        np.stack([(windows * w[:, None, None]).sum((0, 3, 4)) for w in weights])
        + bias[:, None, None]
    )


def halve(x):
    channels, height, width = x.shape
    return x.reshape(channels, height // 2, 2, width // 2, 2).max((2, 4))


def test_forward_against_numpy():
    torch.manual_seed(0)
    net = LeNet5().eval()
    x = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        found = net(x).numpy()
    for image, logits in zip(x.numpy(), found, strict=True):
        y = halve(np.maximum(convolve(image, net.conv1, 2), 0))
        y = halve(np.maximum(convolve(y, net.conv2, 0), 0))
        assert y.shape == (16, 5, 5)
        y = y.ravel()
        for layer in (net.fc1, net.fc2, net.fc3):
            weights, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
            y = weights @ y + bias
            if layer is not net.fc3:
                y = np.maximum(y, 0)
        np.testing.assert_allclose(logits, y, atol=1e-5)


def test_size_is_the_known_one():
    assert sum(p.numel() for p in LeNet5().parameters()) == 61_706


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 7)])
def test_channels_and_classes(channels, classes):
    net = LeNet5(channels, classes)
    assert net(torch.zeros(5, channels, 28, 28)).shape == (5, classes)
