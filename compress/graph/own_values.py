"""Graphs that write into nothing of their own or of the caller's: neither buffers nor inputs."""

from torch import fx

from edgedl.compress.graph.edit import insert_call, is_constant, output_nodes
from edgedl.compress.graph.operators.operator import aten, first_input, is_view
from edgedl.compress.graph.passes.forms.side_effects import twin_of
from edgedl.compress.graph.values import record_value, value_of


def drop_writes(module: fx.GraphModule) -> None:
    """Have operators that work in place on a buffer or an input work on a new tensor.

    What reads the changed buffer or input later reads that. What is only counted goes.

    Before: ``add_(count, 1); mul_(x, 2); linear(x)``. After: ``y = mul(x, 2); linear(y)``.
    """
    for node in list(module.graph.nodes):
        changed = first_input(node)
        if twin_of(node) is None or not isinstance(changed, fx.Node):
            continue
        base = _base(changed)
        if not is_constant(base) and base.op != "placeholder":
            continue
        if base is changed:
            _write_elsewhere(module, node, base)
        else:
            _copy_first(module, base)
    _drop_unread(module)
    module.graph.eliminate_dead_code()


def _drop_unread(module: fx.GraphModule) -> None:
    """Erase what works in place on memory that no output is computed of."""
    read: set[fx.Node] = set()
    waiting = output_nodes(module)
    while waiting:
        node = waiting.pop()
        if node not in read:
            read.add(node)
            waiting += node.all_input_nodes
    for node in reversed(list(module.graph.nodes)):
        changed = first_input(node)
        if twin_of(node) is None or node.users or not isinstance(changed, fx.Node):
            continue
        if node not in read and _base(changed) not in read:
            module.graph.erase_node(node)


def _base(node: fx.Node) -> fx.Node:
    """Return the value whose memory a view shows."""
    while is_view(node) and isinstance(source := first_input(node), fx.Node):
        node = source
    return node


def _write_elsewhere(module: fx.GraphModule, node: fx.Node, base: fx.Node) -> None:
    """Put the twin of an operator that makes a new tensor in its place."""
    made = insert_call(module.graph, node, twin_of(node), *node.args, **node.kwargs)
    record_value(made, value_of(node))
    nodes = list(module.graph.nodes)
    later = set(nodes[nodes.index(node) + 1 :])
    base.replace_all_uses_with(made, delete_user_cb=lambda user: user in later)
    node.replace_all_uses_with(made)
    module.graph.erase_node(node)


def _copy_first(module: fx.GraphModule, base: fx.Node) -> None:
    """Have a copy of a buffer or input in its place, whose parts may be written."""
    if [user.target for user in base.users] == [aten.clone.default]:
        return
    first = next(n for n in module.graph.nodes if n in base.users)
    copied = insert_call(module.graph, first, aten.clone.default, base)
    record_value(copied, value_of(base))
    base.replace_all_uses_with(copied, delete_user_cb=lambda user: user is not copied)
