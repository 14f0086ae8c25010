"""Maxima over stacks, of every axis and form, and what only looks like one."""

import numpy as np
import pytest
import torch
from rewritten_graphs import traced
from small_networks import Net, noise
from torch import nn

from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.task.task import ArrayTask, Samples

STACKS = [
    lambda x: torch.stack([x, -x, x * 2], 1).amax(1),
    lambda x: torch.stack([x, -x], -1).amax(-1),
    lambda x: torch.stack([x, -x], 3).max(3)[0],
    lambda x: torch.stack([x, -x], 2).amax(2, keepdim=True),
]


@pytest.mark.parametrize("function", STACKS)
def test_a_stack_is_not_made(function) -> None:
    graph = traced(Net(lambda net, x: function(x)), 4, 6, 6)
    targets = [n.target for n in graph.graph.nodes]
    assert aten.maximum.default in targets
    assert aten.cat.default not in targets


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([x, -x], 1).amax(2),
        lambda x: torch.stack([x, -x], 1).amax((1, 2)),
        lambda x: torch.cat([x, -x], 1).amax(1),
        lambda x: torch.cat([x.unsqueeze(1), -x.unsqueeze(1)], 2).amax(2),
    ],
)
def test_other_maxima_stay(function) -> None:
    graph = traced(Net(lambda net, x: function(x)), 4, 6, 6)
    assert aten.maximum.default not in [n.target for n in graph.graph.nodes]


@pytest.mark.slow
def test_openvino_computes_the_maximum_of_branches(tmp_path) -> None:
    torch.manual_seed(0)
    net = Net(
        lambda net, x: net.last(torch.stack([net.one(x), net.two(x), net.three(x)], 1).amax(1)),
        one=nn.Conv2d(8, 16, 1),
        two=nn.Conv2d(8, 16, 1),
        three=nn.Conv2d(8, 16, 1),
        last=nn.Conv2d(16, 4, 1),
    ).eval()
    samples = Samples((noise(16, 8, 6, 6).numpy(),), np.zeros(16))
    splits = {"calibration": lambda: samples, "test": lambda: samples}
    task = ArrayTask("noise", splits, "none", lambda outputs, labels: np.zeros(len(labels)))
    recipe = load_recipe("static_w8c_a8")
    made = compress(Subject("branches", net, task), recipe, (load_target("openvino"),), tmp_path)
    assert made.bundle.artifact("openvino-int8").findings == ()
