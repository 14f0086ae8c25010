"""Put two layers in the place of one, in a graph that can be trained, cut and traced."""

from collections.abc import Mapping

from torch import Tensor, fx, nn

from edgedl.compress.factorize.two_factors import TwoFactors
from edgedl.compress.graph.edit import insert_call
from edgedl.compress.graph.operators.operator import Weighted, set_argument
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.graph.stored_weights import StoredWeight, stored_weights
from edgedl.compress.graph.values import record_value, value_of
from edgedl.runtime.errors import BadInputError


def can_split(weight: StoredWeight) -> bool:
    """Say whether nothing but ungrouped layers reads a weight."""
    return not weight.others and all(groups_of(n) == 1 and not n.kwargs for n in weight.readers)


def split_layers(graph: fx.GraphModule, ranks: Mapping[str, int]) -> None:
    """Split layers of a graph of ``export_graph`` in place.

    The first of the two has the kernel, stride and padding of the layer, ``rank`` outputs and no
    bias; the second is a linear layer or a convolution of one place, with the bias. Their weights
    are beside the old one, "path_first" and "path_second".

    Source: Zhang et al., "Accelerating very deep convolutional networks for classification and
    detection", 2016, section 3.1 (the two layers); the factors are those of the weight alone, as
    in Denton et al., 2014, section 3.2.1.

    Args:
        graph: whose layers know their shapes.
        ranks: path of a weight -> outputs of the first layer.

    Raises:
        BadInputError: there is no such weight that can be split, or it has no such rank.
    """
    by_path = {weight.path: weight for weight in stored_weights(graph) if can_split(weight)}
    for path, rank in ranks.items():
        if path not in by_path:
            raise BadInputError(
                f"the history splits '{path}', the module has no such layer: is it another "
                "architecture?"
            )
        factors = TwoFactors.of(by_path[path].value)
        if not 1 <= rank <= len(factors.values):
            raise BadInputError(
                f"the history splits '{path}' at rank {rank}, the module's has "
                f"{len(factors.values)}: is it of another width?"
            )
        _split(graph, by_path[path], factors, rank)
    graph.graph.lint()
    graph.recompile()


def _split(graph: fx.GraphModule, weight: StoredWeight, factors: TwoFactors, rank: int) -> None:
    stored = [
        (f"{weight.path}_{side}", nn.Parameter(value, weight.value.requires_grad))
        for side, value in zip(("first", "second"), factors.factors(rank), strict=True)
    ]
    constants = dict.fromkeys(Weighted.of(node).weight for node in weight.readers)
    for path, value in stored:
        parent, _, leaf = path.rpartition(".")
        graph.get_submodule(parent).register_parameter(leaf, value)
    for node in weight.readers:
        _split_node(graph.graph, node, stored, rank)
    for constant in constants:
        graph.graph.erase_node(constant)
    for path in {str(constant.target) for constant in constants}:
        parent, _, leaf = path.rpartition(".")
        delattr(graph.get_submodule(parent), leaf)


def _split_node(
    graph: fx.Graph, node: fx.Node, stored: list[tuple[str, nn.Parameter]], rank: int
) -> None:
    """Replace an operator; the two that take its place belong to the same module."""
    value: Tensor = value_of(node)
    constants = []
    for path, parameter in stored:
        with graph.inserting_before(node):
            constant = graph.get_attr(path)
        record_value(constant, value.new_empty(parameter.shape))
        constants.append(constant)
    row = row_of(node)
    first = insert_call(graph, node, node.target, *node.args)
    set_argument(first, "weight", constants[0])
    set_argument(first, "bias", None)
    behind = (first, constants[1], Weighted.of(node).bias)
    second = insert_call(graph, node, row.overloads[0], *behind)
    sizes = list(value.shape)
    sizes[row.channel_axis] = rank
    record_value(first, value.new_empty(sizes))
    record_value(second, value)
    node.replace_all_uses_with(second)
    graph.erase_node(node)
