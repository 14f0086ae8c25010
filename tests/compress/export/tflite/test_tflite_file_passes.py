"""The rewrites of converted files one after another: each acts, and the numbers stay."""

import numpy as np
import pytest
import torch.nn.functional as F
from file_readers import TFLiteFile
from small_networks import Net, Quantized, noise
from torch import Tensor, nn

from edgedl.compress.export.tflite import file_passes
from edgedl.compress.export.tflite.file_passes import ORDER, REORDERS_WEIGHTS, rewrite_file


def _forward(net: Net, x: Tensor) -> Tensor:
    h = net.strided(F.pad(net.first(x), (0, 1, 0, 1)))
    h = h + F.max_pool2d(F.relu(h), 3, 1, 1)
    return net.last(F.pixel_shuffle(net.wide(h.abs()), 2))


def network() -> Quantized:
    net = Net(
        _forward,
        first=nn.Conv2d(3, 3, 1),
        strided=nn.Conv2d(3, 4, 3, 2),
        wide=nn.Conv2d(4, 16, 3, padding=1),
        last=nn.Conv2d(4, 2, 1),
    )
    return Quantized(net, (noise(24, 3, 8, 8),))


@pytest.mark.slow
def test_every_pass_keeps_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    monkeypatch.setattr(file_passes, "ORDER", ())
    model = net.tflite
    before = TFLiteFile(model).run(net.arrays)[0]
    for rewrite in ORDER:
        rewritten = rewrite(model)
        assert rewritten != model, rewrite.__name__
        found = TFLiteFile(rewritten).run(net.arrays)[0]
        # Floats in place of integers round elsewhere.
        np.testing.assert_allclose(found, before, atol=2 * net.steps[0])
        assert np.abs(found - before).mean() < 0.3 * net.steps[0]
        assert rewrite(rewritten) == rewritten
        model = rewritten
    monkeypatch.undo()
    assert rewrite_file(model) == model


def test_weights_keep_their_order_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(name: bytes):
        return lambda model: model + name

    first, second = touched(b"a"), touched(b"b")
    monkeypatch.setattr(file_passes, "ORDER", (first, second))
    monkeypatch.setattr(file_passes, "REORDERS_WEIGHTS", frozenset({second}))
    assert rewrite_file(b"") == b"ab"
    assert rewrite_file(b"", weights_as_they_are=True) == b"a"
    assert set(ORDER) > REORDERS_WEIGHTS
