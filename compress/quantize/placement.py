"""Where a target wants its quantize/dequantize pairs: the only thing that differs by target."""

from torch import fx

from edgedl.compress.graph.edit import is_constant
from edgedl.compress.graph.operators import (
    ACTIVATION_PRODUCERS,
    CONCAT,
    FUSED_ACTIVATIONS,
    PASS_THROUGH,
    QUANTIZABLE,
    WEIGHTED,
    aten,
)
from edgedl.compress.quantize.affine import Target
from edgedl.compress.quantize.encodings import Encodings

Placement = dict[fx.Node, set[fx.Node]]


def quantized_nodes(graph: fx.Graph, encodings: Encodings) -> set[fx.Node]:
    """Return the nodes that compute in int8; the others stay float islands.

    A value that only moves (reshape, max pool, ...) is int8 if what it moves is.
    """
    chosen: set[fx.Node] = set()
    for node in graph.nodes:
        if node.target not in QUANTIZABLE or node.name not in encodings.activations:
            continue
        if node.target in PASS_THROUGH:
            source = node.args[0]
            if source not in chosen and source.op != "placeholder":
                continue
        if node.target in WEIGHTED and not is_constant(node.args[1]):
            continue
        chosen.add(node)
    return chosen


def place(graph: fx.Graph, encodings: Encodings, target: Target) -> Placement:
    """Return {node: its users that must read it quantized and dequantized}.

    ONNX Runtime and TFLite want every tensor quantized, except between an operator and the
    activation it fuses with. TensorRT wants the inputs of convolutions, linear layers, and one
    operand of a residual add: the one that is not the output of the convolution it fuses with.
    """
    chosen = quantized_nodes(graph, encodings)
    placement: Placement = {}
    for node in graph.nodes:
        if node.name not in encodings.activations:
            continue
        if target == "tensorrt":
            users = {u for u in node.users if u in chosen and _tensorrt_wants(node, u)}
        elif node not in chosen:
            users = {u for u in node.users if u in chosen}
        elif _fuses_with_activation(node, chosen):
            users = set()
        else:
            users = set(node.users)
        if users:
            placement[node] = users
    return placement


def needs_requantization(graph: fx.Graph, encodings: Encodings) -> list[tuple[fx.Node, fx.Node]]:
    """Return (input, concat) pairs whose encodings differ.

    TFLite's concat needs its inputs on the output's grid. ONNX Runtime's converts by itself,
    which is the same arithmetic.
    """
    chosen = quantized_nodes(graph, encodings)
    ranges = encodings.activations
    return [
        (source, node)
        for node in graph.nodes
        if node.target is CONCAT and node in chosen
        for source in dict.fromkeys(node.args[0])
        if source.name in ranges and ranges[source.name] != ranges[node.name]
    ]


def _fuses_with_activation(node: fx.Node, chosen: set[fx.Node]) -> bool:
    if node.target not in ACTIVATION_PRODUCERS or len(node.users) != 1:
        return False
    user = next(iter(node.users))
    return user.target in FUSED_ACTIVATIONS and user in chosen


def _tensorrt_wants(node: fx.Node, user: fx.Node) -> bool:
    if user.target in WEIGHTED:
        return user.args[0] is node
    return _residual_operand(user) is node


def _residual_operand(add: fx.Node) -> fx.Node | None:
    """Return the operand of a residual add that TensorRT wants quantized, if it is one."""
    if add.target not in (aten.add.Tensor, aten.add_.Tensor):
        return None
    operands = [a for a in add.args[:2] if isinstance(a, fx.Node) and not is_constant(a)]
    if len(operands) != 2:
        return None
    first, second = operands
    if first.target in WEIGHTED and len(first.users) == 1:
        return second
    return first if second.target in WEIGHTED and len(second.users) == 1 else None
