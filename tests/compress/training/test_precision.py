"""Depthwise convolutions that are slow in bfloat16 stay in float32, and only while training."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from listening import notes_to
from torch import nn
from training_blobs import SETTINGS, Blobs, make_module

from edgedl.compress.training import train
from edgedl.compress.training.mixed_precision import float32_where_bfloat16_is_slow, has_bfloat16


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


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "aarch64", "neon": True}, False),
    ],
)
def test_which_processors_have_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16() == expected


@pytest.mark.parametrize("has", [True, False])
def test_mixed_precision_is_for_processors_that_have_bfloat16(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    mixed, exact, heard = make_module(), make_module(), []
    dtypes = []
    mixed[0].register_forward_hook(lambda module, x, y: dtypes.append(y.dtype))
    settings = replace(SETTINGS, epochs=1)
    train(
        mixed,
        Blobs(),
        F.cross_entropy,
        replace(settings, mixed_precision=True),
        progress=notes_to(heard.append),
    )
    train(exact, Blobs(), F.cross_entropy, settings)
    assert set(dtypes) == {torch.bfloat16 if has else torch.float32}
    assert ("no bfloat16" in heard[0]) != has
    assert torch.equal(mixed[0].weight, exact[0].weight) != has
