"""Weights that are views of other memory: a converter must not read that memory as theirs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import noise
from torch import Tensor, nn

from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import TFLITE
from edgedl.runtime.task.task import ArrayTask, Samples


class Published(nn.Module):
    """Filters as TensorFlow stores them, [H, W, in, out], turned by views; a strided buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 3)])
        for _ in range(3):
            self.layers += [nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1)]
        for layer in self.layers:
            after, before, height, width = layer.weight.shape
            filters = torch.randn(height, width, before, after) / before**0.5
            layer.weight = nn.Parameter(filters.permute(3, 2, 0, 1))
        self.register_buffer("row", torch.rand(2, 16).T)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean(3) * self.row


def test_the_graph_stores_values_in_order_and_the_module_keeps_its_own() -> None:
    net, x = Published().eval(), noise(2, 3, 10, 10)
    strides = [net.layers[i].weight.stride() for i in range(7)], net.row.stride()
    graph = trace(net, (x,))
    stored = [*graph.parameters(), *graph.buffers()]
    assert stored
    assert all(tensor.is_contiguous() for tensor in stored)
    assert (
        [net.layers[i].weight.stride() for i in range(7)],
        net.row.stride(),
    ) == strides
    with torch.no_grad():
        torch.testing.assert_close(graph(x), net(x))


@pytest.mark.slow
def test_litert_reads_the_weights_right(tmp_path: Path) -> None:
    samples = Samples((noise(8, 3, 10, 10).numpy(),), np.zeros(8))
    splits = {"calibration": lambda: samples, "test": lambda: samples}
    task = ArrayTask("noise", splits, "none", lambda outputs, labels: np.zeros(len(labels)))
    subject = Subject("published", Published().eval(), task)
    made = compress(subject, load_recipe("float"), (TFLITE,), tmp_path)
    assert "tflite-float32" in [a.name for a in made.bundle.manifest.artifacts]
    assert "tflite-float32" not in [refusal.name for refusal in made.refusals]
