"""Max pools behind a pad of minus infinity, in any form, against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rewritten_graphs import assert_numerically_equal
from small_networks import Net, noise
from torch import nn

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.trace import export_graph, trace
from edgedl.compress.pipeline import compress
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

NONE = -torch.inf
POOLS = [
    (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=NONE), 2, 1), (3, 8, 8)),
    (lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=NONE), 3, 2), (3, 8, 8)),
    (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=NONE), 3, 2), (3, 7, 9)),
    (lambda x: F.max_pool2d(F.pad(x, (2, 2, 1, 2), value=-1e9), 5, 1), (3, 7, 9)),
    (lambda x: F.max_pool2d(F.pad(x, (1, 0), value=NONE), 3, 2, padding=1), (3, 8, 8)),
    (lambda x: F.max_pool1d(F.pad(x, (1, 0), value=NONE), 2, 1), (3, 9)),
]


@pytest.mark.parametrize(("function", "shape"), POOLS)
def test_a_pool_keeps_its_values(function, shape) -> None:
    net = Net(lambda net, x: function(x)).eval()
    x = noise(2, *shape) - 5
    exported, graph = export_graph(net, (x,)), trace(net, (x,))
    assert not {aten.pad.default, aten.constant_pad_nd.default} & {
        node.target for node in graph.graph.nodes
    }
    assert_numerically_equal(exported, graph, noise(3, *shape, seed=4) - 5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=NONE), 3, 2, ceil_mode=True),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=NONE), 2, 1, dilation=2),
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 2, 1),
    ],
)
def test_what_pads_otherwise_stays(function) -> None:
    graph = trace(Net(lambda net, x: function(x)).eval(), (noise(2, 3, 8, 8),))
    assert not {aten.cat.default} & {node.target for node in graph.graph.nodes}


@pytest.mark.slow
def test_its_int8_files_are_near(tmp_path) -> None:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: net.last(F.max_pool2d(F.pad(net.first(x), (0, 1, 0, 1), value=NONE), 2, 1)),
        first=nn.Conv2d(3, 8, 3),
        last=nn.Conv2d(8, 4, 1),
    ).eval()
    x = noise(16, 3, 12, 12).numpy()
    samples = Samples((x,), np.zeros(16))
    splits = {"calibration": lambda: samples, "test": lambda: samples}
    task = ArrayTask("noise", splits, "none", lambda outputs, labels: np.zeros(len(labels)))
    made = compress(Subject("padded", net, task), None, (ORT, TFLITE), tmp_path)
    with torch.no_grad():
        wanted = net(torch.tensor(x)).numpy()
    for name in ("ort-int8", "tflite-int8"):
        with Runner(made.bundle, made.bundle.artifact(name)) as runner:
            (found,) = runner(x)
        assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()
