"""Other forms of operators that compute, written as those that have integer kernels."""

import operator
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant, take_place
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.forms import Arguments, Form, Insert, inserter


def _clamp(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node:
    ends = given.get("min"), given.get("max")
    return inserter(module, node)(aten.clamp.default, given["self"], *ends)


def _relu_of_threshold(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if given["threshold"] != 0 or given["value"] != 0:
        return None
    return inserter(module, node)(aten.relu.default, given["self"])


def _leaky_of_prelu(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a parametric ReLU of one slope as a leaky one."""
    if not is_constant(given["weight"]):
        return None
    slope = get_tensor(module, str(given["weight"].target))
    if slope.numel() != 1:
        return None
    return inserter(module, node)(aten.leaky_relu.default, given["self"], float(slope))


def _square(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if given.get("exponent", 2) != 2:
        return None
    return inserter(module, node)(aten.mul.Tensor, given["self"], given["self"])


def _negative(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if not node.meta["val"].is_floating_point():
        return None
    return inserter(module, node)(aten.mul.Tensor, given["self"], -1.0)


def _mul_of_div(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    divisor, insert = given["other"], inserter(module, node)
    if isinstance(divisor, (int, float)) and divisor:
        return insert(aten.mul.Tensor, given["self"], 1 / divisor)
    stored = get_tensor(module, str(divisor.target)) if is_constant(divisor) else None
    if stored is None or not stored.is_floating_point() or not stored.all():
        return None
    factor = insert_constant(module, node, f"{divisor.target}_{node.name}", 1 / stored)
    return insert(aten.mul.Tensor, given["self"], factor)


def _add_of_rsub(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    number, is_float = given["other"], node.meta["val"].is_floating_point()
    if given["alpha"] != 1 or not isinstance(number, (int, float)) or not is_float:
        return None
    insert = inserter(module, node)
    return insert(aten.add.Tensor, insert(aten.mul.Tensor, given["self"], -1.0), number)


def _add(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a multiple that is added as a product of its own."""
    if given["alpha"] == 1:
        return None
    insert = inserter(module, node)
    return insert(aten.add.Tensor, given["self"], _multiple(insert, given, given["alpha"]))


def _add_of_sub(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a difference from something stored as a sum.

    ONNX Runtime has an integer kernel for sums alone, and TFLite's converter takes a stored tensor
    minus another for the other way round.
    """
    a, b, insert = given["self"], given["other"], inserter(module, node)
    if not node.meta["val"].is_floating_point():
        return None
    if isinstance(b, (int, float)):
        return insert(aten.add.Tensor, a, -b * given["alpha"])
    if is_constant(b):
        value = get_tensor(module, str(b.target)) * -given["alpha"]
        return insert(aten.add.Tensor, a, insert_constant(module, node, f"{node.name}_by", value))
    if is_constant(a) or given["alpha"] != 1:
        return insert(aten.add.Tensor, _multiple(insert, given, -given["alpha"]), a)
    return None


def _multiple(insert: Insert, given: Arguments, factor: float) -> Any:
    """Return a multiple of an operator's second argument."""
    other = given["other"]
    if isinstance(other, (int, float)):
        return other * factor
    return other if factor == 1 else insert(aten.mul.Tensor, other, float(factor))


def _gate_of_glu(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a gated linear unit as the product it is.

    Source: Dauphin et al., "Language modeling with gated convolutional networks", 2017, equation 1.
    """
    x, axis, insert = given["self"], given["dim"], inserter(module, node)
    half = node.meta["val"].shape[axis]
    if not isinstance(half, int):
        return None
    value = insert(aten.slice.Tensor, x, axis, 0, half)
    gate = insert(aten.slice.Tensor, x, axis, half, 2 * half)
    return insert(aten.mul.Tensor, value, insert(aten.sigmoid.default, gate))


def _softmax_of_last(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Turn the axis of a softmax to the end, where every runtime has an integer kernel for it."""
    axis, last = given["dim"] % node.meta["val"].ndim, node.meta["val"].ndim - 1
    if axis == last or given["dtype"] is not None:
        return None
    insert = inserter(module, node)
    turned = insert(aten.transpose.int, given["self"], axis, last)
    result = insert(aten.softmax.int, turned, last)
    return insert(aten.transpose.int, result, axis, last)


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


def _mean_of_adaptive_pool(
    module: fx.GraphModule, node: fx.Node, given: Arguments
) -> fx.Node | None:
    if list(given["output_size"]) != [1]:
        return None
    return inserter(module, node)(aten.mean.dim, given["self"], [-1], True)


def _amax(module: fx.GraphModule, node: fx.Node, given: Arguments) -> None:
    """Replace the maxima of a tuple whose other half, their places, nobody reads."""
    users = list(node.users)
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in users):
        return
    if node.target is aten.max.dim:
        axes, keepdim = [given["dim"]], given["keepdim"]
    elif list(given["output_size"]) == [1, 1]:
        axes, keepdim = [2, 3], True
    else:
        return
    maxima = inserter(module, node)(aten.amax.default, given["self"], axes, keepdim)
    for user in users:
        user.replace_all_uses_with(maxima)
        module.graph.erase_node(user)
    take_place(module, node, maxima)


COMPUTING_FORMS: dict[Any, Form] = {
    aten.threshold.default: _relu_of_threshold,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _square,
    aten.neg.default: _negative,
    aten.div.Tensor: _mul_of_div,
    aten.div.Scalar: _mul_of_div,
    aten.rsub.Scalar: _add_of_rsub,
    aten.add.Tensor: _add,
    aten.sub.Tensor: _add_of_sub,
    aten.softmax.int: _softmax_of_last,
    aten.prelu.default: _leaky_of_prelu,
    aten.glu.default: _gate_of_glu,
    aten.max.dim: _amax,
    aten.adaptive_max_pool2d.default: _amax,
    aten.avg_pool1d.default: _pool_of_series,
    aten.adaptive_avg_pool1d.default: _mean_of_adaptive_pool,
}
