"""A graph whose pictures and maps have their channels last, as TFLite's kernels compute them."""

from torch import Tensor, fx

from edgedl.compress.graph.edit import copy_graph, finish, input_nodes, output_nodes
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.pictures import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, Pictures
from edgedl.compress.graph.values import record_value, value_of


def channels_last(graph: fx.GraphModule, pictures: Pictures) -> fx.GraphModule:
    """Return a graph that takes pictures and gives maps as [N, H, W, C].

    The converter's kernels have that layout, so the permutations that this adds cancel those that
    it would put at the borders of the file.
    """
    if not (pictures.inputs or pictures.outputs):
        return graph
    copy = copy_graph(graph)
    for position, node in enumerate(input_nodes(copy)):
        if position in pictures.inputs:
            _turn_input(copy, node)
    returned = output_nodes(copy)
    (end,) = copy.graph.find_nodes(op="output")
    with copy.graph.inserting_before(end):
        end.args = (
            tuple(
                copy.graph.call_function(aten.permute.default, (node, TO_CHANNELS_LAST))
                if position in pictures.outputs
                else node
                for position, node in enumerate(returned)
            ),
        )
    return finish(copy)


def inputs_of_file(inputs: tuple[Tensor, ...], pictures: Pictures) -> tuple[Tensor, ...]:
    """Return inputs [N, C, H, W] as such a graph takes them."""
    return tuple(
        x.permute(TO_CHANNELS_LAST).contiguous() if position in pictures.inputs else x
        for position, x in enumerate(inputs)
    )


def _turn_input(module: fx.GraphModule, node: fx.Node) -> None:
    with module.graph.inserting_after(node):
        first = module.graph.call_function(aten.permute.default, (node, TO_CHANNELS_FIRST))
    node.replace_all_uses_with(first, delete_user_cb=lambda user: user is not first)
    value = value_of(node)
    record_value(first, value)
    record_value(node, value.permute(TO_CHANNELS_LAST))
