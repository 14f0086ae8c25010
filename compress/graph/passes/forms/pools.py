"""Pools of series."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass


def _pool_of_series(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    """Write an average pool of [..., C, T] as one of pictures of one row, [..., C, 1, T]."""
    insert = inserter(module, node)
    row = insert(aten.unsqueeze.default, given["self"], -2)
    kernel = given["kernel_size"]
    pooled = insert(
        aten.avg_pool2d.default,
        row,
        [1, *kernel],
        [1, *(given["stride"] or kernel)],
        [0, *given["padding"]],
        given["ceil_mode"],
        given["count_include_pad"],
    )
    return insert(aten.squeeze.dim, pooled, -2)


def _mean_of_pool(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if list(given["output_size"]) != [1]:
        return None
    return inserter(module, node)(aten.mean.dim, given["self"], [-1], True)


class PoolForms(FormPass):
    """Write average pools of series as those of pictures, and over all of a series as means.

    Before: ``avg_pool1d(x, 2)``, ``adaptive_avg_pool1d(x, 1)``.
    After: ``squeeze(avg_pool2d(unsqueeze(x, -2), [1, 2]), -2)``, ``mean(x, [-1], True)``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {
        aten.avg_pool1d.default: _pool_of_series,
        aten.adaptive_avg_pool1d.default: _mean_of_pool,
    }
    gone = frozenset({aten.avg_pool1d.default})
