"""Where a target wants its quantize/dequantize pairs: the only thing that differs by target."""

import numpy as np
from torch import fx

from edgedl.compress.encodings.affine import grid_of
from edgedl.compress.encodings.encodings import Encodings
from edgedl.compress.graph.edit import is_constant
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS
from edgedl.compress.graph.operators.elementwise import ADD
from edgedl.compress.graph.operators.joining import PADDINGS, Pad
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.operator import (
    Weighted,
    first_input,
    operands,
    reads_activations,
)
from edgedl.compress.graph.operators.table import (
    folds_activation,
    has_stored_weight,
    is_clip,
    is_quantizable,
    is_weighted,
    moves_values,
    row_of,
)
from edgedl.compress.graph.passes.fold.input_norm import is_float_norm
from edgedl.compress.graph.values import is_floating, shape_of
from edgedl.compress.targets.target import Target

Placement = dict[fx.Node, set[fx.Node]]


def quantized_nodes(
    graph: fx.Graph, encodings: Encodings, target: Target | None = None
) -> set[fx.Node]:
    """Return the nodes that compute in int8, on any runtime or on that of one target.

    The others stay float islands.

    A value that only moves (reshape, max pool, ...) is int8 if what it moves is; the activation
    that fuses with an operator that is kept in float stays with it. What is computed of constants
    alone is one.
    """
    chosen: set[fx.Node] = set()
    constant: set[fx.Node] = set()
    kept = set(encodings.float_nodes)
    for node in graph.nodes:
        if node.op == "call_function" and all(
            is_constant(n) or n in constant for n in node.all_input_nodes
        ):
            constant.add(node)
            continue
        if not is_quantizable(node) or node.name not in encodings.activations:
            continue
        if node.name in kept or (target is not None and _is_float_on(target, node)):
            activation = fused_activation(node)
            kept |= {activation.name} if activation is not None else set()
            continue
        if moves_values(node):
            source = first_input(node)
            if source not in chosen and source.op == "call_function":
                continue
        if is_weighted(node) and not has_stored_weight(node):
            continue
        chosen.add(node)
    return chosen


def _is_float_on(target: Target, node: fx.Node) -> bool:
    if is_float_norm(node, integers=target.input_norms == "integer"):
        return True
    return not target.computes_in_integers(row_of(node))


def float_islands(
    graph: fx.Graph, encodings: Encodings, target: Target | None = None
) -> list[fx.Node]:
    """Return the operators that compute floats although the network is quantized."""
    chosen = quantized_nodes(graph, encodings, target)
    return [
        node
        for node in graph.nodes
        if node.op == "call_function" and node not in chosen and is_floating(node)
    ]


def place(graph: fx.Graph, encodings: Encodings, target: Target) -> Placement:
    """Return {node: its users that must read it quantized and dequantized}.

    ONNX Runtime and TFLite want every tensor quantized, except between an operator and the
    activation it fuses with, and the results that the table wants in float. TensorRT wants the
    inputs of convolutions, linear layers, and one operand of a residual add: the one that is not
    the output of the convolution it fuses with.
    """
    chosen = quantized_nodes(graph, encodings, target)
    placement: Placement = {}
    for node in graph.nodes:
        if node.name not in encodings.activations:
            continue
        if target.pairs == "layer_inputs":
            users = {u for u in node.users if u in chosen and _tensorrt_wants(node, u)}
        elif is_constant(node):
            # A weight has scales of its own, whoever else reads it.
            users = {u for u in node.users if u in chosen and not is_weighted(u)}
        elif node not in chosen or gives_floats(node, encodings, target):
            users = {u for u in node.users if u in chosen}
        else:
            fused = _fuses(node, chosen, encodings, target) or _joins_convolutions(
                node, chosen, target
            )
            users = set() if fused else _readers(node, chosen, target)
        if users:
            placement[node] = users
    return placement


def _readers(node: fx.Node, chosen: set[fx.Node], target: Target) -> set[fx.Node]:
    """Return who reads the result of an integer operator rounded."""
    if target.pairs == "integer_readers":
        return {user for user in node.users if user in chosen or user.op == "output"}
    return set(node.users)


def fused_activation(node: fx.Node) -> fx.Node | None:
    """Return the activation that runtimes fold into an operator, if it has one."""
    if not folds_activation(node) or len(node.users) != 1:
        return None
    user = next(iter(node.users))
    return user if is_clip(user) else None


def activation_bounds(node: fx.Node) -> tuple[float, float]:
    """Return the smallest and largest value that an activation lets through."""
    return row_of(node).bounds(node)


def _fuses(node: fx.Node, chosen: set[fx.Node], encodings: Encodings, target: Target) -> bool:
    """Say whether nothing needs to stand between an operator and the activation behind it.

    ONNX Runtime drops the activation only where the integers cannot leave its bounds anyhow;
    TFLite always folds it, as a clamp of the integers. Where ONNX Runtime would not, a pair on
    the activation's own grid stands between the two: the same integers again.
    """
    activation = fused_activation(node)
    if activation is None or activation not in chosen:
        return False
    if target.folds_activations == "always":
        return True
    lo, hi = activation_bounds(activation)
    affine = grid_of(encodings, activation.name, target)
    ends = affine.dequantize(np.array([affine.qmin, affine.qmax]))
    # ONNX Runtime's own tolerance in this comparison.
    slack = float(np.finfo(np.float32).eps)
    return bool(lo <= ends[0] + slack and ends[1] <= hi + slack)


def _joins_convolutions(node: fx.Node, chosen: set[fx.Node], target: Target) -> bool:
    """Say whether a node pads pictures that convolutions alone read, and becomes part of them."""
    if row_of(node) not in PADDINGS or not target.folds_padding:
        return False
    read = all(user in chosen and row_of(user) in CONVOLUTIONS for user in node.users)
    return read and len(Pad.of(node).pad) <= 4 and len(shape_of(node)) == 4


def results_read_as_floats(graph: fx.Graph, encodings: Encodings) -> set[fx.Node]:
    """Return the linear layers and matrix products whose integers nothing reads."""
    chosen = quantized_nodes(graph, encodings)
    products = {n for n in chosen if row_of(n) is LINEAR or row_of(n).matrix_product}
    return {n for n in products if not any(user in chosen for user in n.users)}


def gives_floats(node: fx.Node, encodings: Encodings, target: Target) -> bool:
    """Say whether a target's kernel leaves an int8 operator's result in float."""
    return node.name in encodings.float_results and target.float_results


def _tensorrt_wants(node: fx.Node, user: fx.Node) -> bool:
    if is_weighted(user):
        return Weighted.of(user).input is node
    return _residual_operand(user) is node


def _residual_operand(add: fx.Node) -> fx.Node | None:
    """Return the operand of a residual add that TensorRT wants quantized, if it is one."""
    if row_of(add) is not ADD or not reads_activations(add):
        return None
    first: fx.Node
    second: fx.Node
    first, second = operands(add)
    if is_weighted(first) and len(first.users) == 1:
        return second
    return first if is_weighted(second) and len(second.users) == 1 else None
