"""Residual blocks that a network can do without: x + f(x) becomes x."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from edgedl.compress.graph.edit import copy_graph, finish
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.operator import argument, aten, first_input, is_view, operands
from edgedl.compress.graph.operators.table import is_recurrent, row_of
from edgedl.compress.graph.sizes import size_of
from edgedl.compress.graph.values import value_of
from edgedl.runtime.errors import BadInputError

_ADDS = (aten.add.Tensor, aten.add_.Tensor)


@dataclass(frozen=True)
class Block:
    """A sum x + f(x) whose f is read by nothing else.

    Attributes:
        name: path of the module that holds all of f; of the last layer of f where several blocks
            are in one module, or f is not in any.
        add: the sum.
        shortcut: x. position: of x among the operands of the sum.
        branch: the last operator of f.
        inside: the operators of f, in the order of the graph.
    """

    name: str
    add: fx.Node
    shortcut: fx.Node
    position: int
    branch: fx.Node
    inside: tuple[fx.Node, ...]


def find_blocks(graph: fx.GraphModule) -> list[Block]:
    """Return the blocks of a graph of ``export_graph`` that can be removed, in its order.

    Besides x, f may read parameters, and what is made of the network's inputs without them: masks
    and sizes. At least one layer is in it. A block can lie inside another one.
    """
    learned = _learned(graph)
    found = []
    for add in graph.graph.nodes:
        if add.target not in _ADDS or add.kwargs:
            continue
        summands = [a for a in operands(add) if isinstance(a, fx.Node)]
        for position in (0, 1) if len(summands) == 2 else ():
            shortcut, branch = summands[position], summands[1 - position]
            inside = _inside(shortcut, branch)
            if _is_removable(add, shortcut, branch, inside, learned):
                found.append((add, shortcut, position, branch, tuple(inside)))
    names = _names([parts[-1] for parts in found])
    return [Block(name, *parts) for name, parts in zip(names, found, strict=True)]


def remove_blocks(graph: fx.GraphModule, names: Iterable[str]) -> fx.GraphModule:
    """Return a copy of a graph without some of its blocks; what comes behind them stays.

    Raises:
        BadInputError: it has no block of that name.
    """
    copy = copy_graph(graph)
    blocks = {block.name: block for block in find_blocks(copy)}
    gone: set[fx.Node] = set()
    for name in names:
        if name not in blocks:
            raise BadInputError(
                f"the network has no block '{name}' that can be removed: is it another "
                f"architecture? It has {', '.join(blocks) or 'none'}"
            )
        block = blocks[name]
        if block.add in gone:
            continue
        _bypass(block)
        for node in (block.add, *reversed(block.inside)):
            if node not in gone:
                copy.graph.erase_node(node)
                gone.add(node)
    return finish(copy)


def _bypass(block: Block) -> None:
    """Let all that reads the sum read x; what would overwrite x writes a tensor of its own."""
    # Another one than it was found with, if a block before this one is gone.
    shortcut: Any = operands(block.add)[block.position]
    for user in list(block.add.users):
        if block.add in _overwritten(user):
            user.target = _functional(user.target)
    graph = block.add.graph
    if any(_storage(v) is block.add for node in graph.nodes for v in _overwritten(node)):
        # Through a view of the sum.
        with graph.inserting_before(block.add):
            shortcut = graph.call_function(aten.clone.default, (shortcut,))
        shortcut.meta = dict(block.add.meta)
    block.add.replace_all_uses_with(shortcut)


def _inside(shortcut: fx.Node, branch: fx.Node) -> list[fx.Node]:
    """Return what lies on a way from one value to another, the latter included, in order."""
    cone: set[fx.Node] = set()
    waiting = [branch]
    while waiting:
        node = waiting.pop()
        if node not in cone and node is not shortcut:
            cone.add(node)
            waiting += node.all_input_nodes
    inside: dict[fx.Node, None] = {}
    for node in shortcut.graph.nodes:
        dependent = any(n is shortcut or n in inside for n in node.all_input_nodes)
        if node in cone and dependent and _is_tensor(node):
            inside[node] = None
    return list(inside)


def _is_removable(
    add: fx.Node,
    shortcut: fx.Node,
    branch: fx.Node,
    inside: Sequence[fx.Node],
    learned: set[fx.Node],
) -> bool:
    within = {*inside, add}
    if branch not in within or not any(map(_is_layer, inside)):
        return False
    if not _shape(shortcut) == _shape(branch) == _shape(add):
        return False
    if any(user not in within for node in inside for user in node.users):
        return False
    sources = {n for node in inside for n in node.all_input_nodes} - within - {shortcut}
    if sources & learned:
        return False
    written = {_storage(value) for node in inside for value in _overwritten(node)}
    return written <= within


def _learned(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the tensors computed from both the network's inputs and its parameters."""
    parameters = {name for name, _ in graph.named_parameters(remove_duplicate=False)}
    fed: set[fx.Node] = set()
    trained: set[fx.Node] = set()
    for node in graph.graph.nodes:
        sources = node.all_input_nodes
        if not _is_tensor(node):
            continue
        if node.op == "placeholder" or any(n in fed for n in sources):
            fed.add(node)
        is_parameter = node.op == "get_attr" and node.target in parameters
        if is_parameter or any(n in trained for n in sources):
            trained.add(node)
    return fed & trained


def _names(branches: Sequence[Sequence[fx.Node]]) -> list[str]:
    modules = [_common_path([layer_name(node) for node in inside]) for inside in branches]
    often = Counter(modules)
    last = [
        next(layer_name(n) or n.name for n in reversed(inside) if _is_layer(n))
        for inside in branches
    ]
    names = [
        module if module and often[module] == 1 else layer
        for module, layer in zip(modules, last, strict=True)
    ]
    # A layer that is used twice ends two blocks.
    repeated = Counter(names)
    return [
        name if repeated[name] == 1 else f"{name}:{inside[-1].name}"
        for name, inside in zip(names, branches, strict=True)
    ]


def _common_path(paths: Sequence[str]) -> str:
    common = paths[0].split(".")
    for path in paths:
        steps = path.split(".")
        same = [a == b for a, b in zip(common, steps, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return ".".join(common)


def _is_layer(node: fx.Node) -> bool:
    return row_of(node).weight_axis >= 0 or is_recurrent(node)


def _is_tensor(node: fx.Node) -> bool:
    """Say whether a node's value is data; sizes are none."""
    return isinstance(value_of(node), (Tensor, list, tuple))


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = value_of(node)
    return tuple(size_of(d) for d in value.shape) if isinstance(value, Tensor) else ()


def _overwritten(node: fx.Node) -> list[fx.Node]:
    """Return the values that an operator changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
    return [v for name in written if isinstance(v := argument(node, name), fx.Node)]


def _storage(node: fx.Node) -> fx.Node:
    """Return the node that made the memory that a value is in: views have that of their source."""
    source = first_input(node)
    return _storage(source) if is_view(node) and isinstance(source, fx.Node) else node


def _functional(target: Any) -> Any:
    """Return the operator that computes the same without changing its input.

    >>> _functional(aten.relu_.default)
    <OpOverload(op='aten.relu', overload='default')>
    """
    name = target._schema.name.removeprefix("aten::").removesuffix("_")
    return getattr(getattr(aten, name), target._overloadname)
