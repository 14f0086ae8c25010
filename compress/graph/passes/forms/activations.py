"""Other forms of activations."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import constant_of, inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.values import shape_of


def _clamp(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    ends = given.get("min"), given.get("max")
    return inserter(module, node)(aten.clamp.default, given["self"], *ends)


def _relu_of_threshold(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if given["threshold"] != 0 or given["value"] != 0:
        return None
    return inserter(module, node)(aten.relu.default, given["self"])


def _leaky_of_prelu(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a parametric ReLU of one slope as a leaky one."""
    slope = constant_of(module, given["weight"])
    if slope is None or slope.numel() != 1:
        return None
    return inserter(module, node)(aten.leaky_relu.default, given["self"], float(slope))


def _gate_of_glu(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a gated linear unit as the product it is.

    Source: Dauphin et al., "Language modeling with gated convolutional networks", 2017, equation 1.
    """
    x, axis, insert = given["self"], given["dim"], inserter(module, node)
    half = shape_of(node)[axis]
    if not isinstance(half, int):
        return None
    value = insert(aten.slice.Tensor, x, axis, 0, half)
    gate = insert(aten.slice.Tensor, x, axis, half, 2 * half)
    return insert(aten.mul.Tensor, value, insert(aten.sigmoid.default, gate))


class ActivationForms(FormPass):
    """Write activations as clips, ReLUs, leaky ReLUs and gates.

    Before: ``clamp_min(x, 0)``, ``threshold(x, 0, 0)``, ``prelu(x, slope)``, ``glu(x)``.
    After: ``clamp(x, 0)``, ``relu(x)``, ``leaky_relu(x, slope)``, ``mul(a, sigmoid(b))`` of the
    halves.
    """

    operators: ClassVar[Mapping[Any, Form]] = {
        aten.threshold.default: _relu_of_threshold,
        aten.clamp_min.default: _clamp,
        aten.clamp_max.default: _clamp,
        aten.prelu.default: _leaky_of_prelu,
        aten.glu.default: _gate_of_glu,
    }
    gone = frozenset({aten.clamp_min.default, aten.clamp_max.default})
