"""What is computed for a root, a logarithm or a denominator: integers lose its small values."""

from torch import fx

from edgedl.compress.graph.operators.operator import argument
from edgedl.compress.graph.operators.table import is_quantizable, moves_values, row_of


def before_expansions(graph: fx.Graph) -> frozenset[str]:
    """Return the names of the operators that compute in float for what makes small values large.

    Squares have twice the dynamic range in decibels of what they are of: the square of a quiet
    sample is less than a step of the grid, and the root behind it gives nothing. From the operand
    of such an operator back to the products whose results it is made of, all stays float; the
    products themselves are integers.

    >>> from edgedl.compress.graph.operators.operator import aten
    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> square = graph.call_function(aten.mul.Tensor, (x, x))
    >>> root = graph.call_function(aten.sqrt.default, (square,))
    >>> sorted(before_expansions(graph))
    ['mul_tensor']
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        for name in row_of(node).expands:
            operand = argument(node, name)
            if isinstance(operand, fx.Node):
                _add_chain(operand, found)
    return frozenset(node.name for node in found)


def _add_chain(node: fx.Node, found: set[fx.Node]) -> None:
    if node.op != "call_function" or node in found or row_of(node).product:
        return
    if moves_values(node):
        for source in node.all_input_nodes:
            _add_chain(source, found)
        return
    if not is_quantizable(node):
        return
    found.add(node)
    for source in node.all_input_nodes:
        _add_chain(source, found)
