"""Depthwise convolutions that are slow in bfloat16 stay in float32, and only while training."""

import pytest
import torch
from torch import nn

from edgedl.compress.precision import float32_where_bfloat16_is_slow


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "expected"),
    [
        (3, 2, 8, torch.float32),
        (5, 1, 8, torch.float32),
        (3, 1, 8, torch.bfloat16),
        (3, 2, 1, torch.bfloat16),
    ],
)
def test_which_convolutions_stay_in_float32(kernel, stride, groups, expected):
    net = nn.Sequential(nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups))
    x = torch.randn(2, 8, 6, 6)
    with float32_where_bfloat16_is_slow(net), torch.autocast("cpu", torch.bfloat16):
        inside = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        after = net(x)
    assert inside.dtype == expected
    assert after.dtype == torch.bfloat16
    torch.testing.assert_close(inside.float(), net(x), atol=0.05, rtol=0.05)
    assert "forward" not in vars(net[0])


def test_it_is_undone_after_an_error():
    net = nn.Conv2d(8, 8, 3, 2, groups=8)
    with pytest.raises(ZeroDivisionError), float32_where_bfloat16_is_slow(net):
        raise ZeroDivisionError
    assert "forward" not in vars(net)
