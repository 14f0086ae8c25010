"""Small edits of an fx graph: read and write its tensors, insert calls."""

import copy
import operator
import warnings
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from edgedl.compress.graph.values import record_value, value_of

Insert = Callable[..., fx.Node]

# What a node's meta says of where in the user's code it comes from.
_ORIGIN = ("nn_module_stack", "stack_trace")


def copy_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that shares nothing with the original."""
    with warnings.catch_warnings():
        # torch's own pytree classes warn about each other while they are copied.
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(module)


def get_tensor(module: fx.GraphModule, path: str) -> Tensor:
    """Return the parameter or buffer at a dotted path."""
    tensor = operator.attrgetter(path)(module)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{path} is {type(tensor).__name__}, not a tensor")
    return tensor.detach()


def set_tensor(module: fx.GraphModule, path: str, value: Tensor) -> None:
    """Store a copy of ``value`` as a buffer at a dotted path, replacing what is there.

    The copy's values stand in the order of its axes, whatever view it is of: converters read the
    memory of a transposed view as if it were another tensor.
    """
    parent_path, _, leaf = path.rpartition(".")
    parent: nn.Module = module.get_submodule(parent_path)
    if hasattr(parent, leaf):
        delattr(parent, leaf)
    parent.register_buffer(leaf, value.detach().clone(memory_format=torch.contiguous_format))


def insert_constant(module: fx.GraphModule, before: fx.Node, path: str, value: Tensor) -> fx.Node:
    """Store a tensor and return a node that reads it, placed before another node."""
    set_tensor(module, path, value)
    with module.graph.inserting_before(before):
        constant = module.graph.get_attr(path)
    shaped = value_of(before)
    if isinstance(shaped, Tensor):
        record_value(constant, shaped.new_empty(value.shape, dtype=value.dtype))
    return constant


def insert_call(
    graph: fx.Graph, before: fx.Node, function: Any, *arguments: Any, **options: Any
) -> fx.Node:
    """Insert a call before a node, as part of the same module and line, and return it."""
    with graph.inserting_before(before):
        call = graph.call_function(function, arguments, options)
    call.meta.update({k: before.meta[k] for k in _ORIGIN if k in before.meta})
    return call


def insert_shaped_call(
    module: fx.GraphModule, before: fx.Node, function: Any, *arguments: Any, **options: Any
) -> fx.Node:
    """Insert a call as ``insert_call`` does, whose shape is known to what reads it."""
    call = insert_call(module.graph, before, function, *arguments, **options)
    args, kwargs = fx.map_arg((arguments, options), lambda n: tensor_of(module, n))
    record_value(call, function(*args, **kwargs))
    return call


def inserter(module: fx.GraphModule, before: fx.Node) -> Insert:
    """Return what inserts calls of known shapes before a node."""
    return lambda function, *a, **k: insert_shaped_call(module, before, function, *a, **k)


def insert_again(
    module: fx.GraphModule, before: fx.Node, call: fx.Node, old: fx.Node, new: fx.Node
) -> fx.Node:
    """Insert another call as one is, but that it reads a new node in place of an old one."""
    args, kwargs = fx.map_arg((call.args, call.kwargs), lambda n: new if n is old else n)
    return insert_shaped_call(module, before, call.target, *args, **kwargs)


def take_place(module: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    """Let a new node stand for another, which goes: what read that reads it, and so it is called.

    Names are how users and tables know an operator.
    """
    node.replace_all_uses_with(by)
    module.graph.erase_node(node)
    by.name = node.name


def tensor_of(module: fx.GraphModule, node: fx.Node) -> Any:
    """Return what has the shape and type of a node's value: a constant has no values there."""
    value = value_of(node)
    stored = constant_of(module, node) if value is None else None
    return value if stored is None else stored.to("meta")


def is_constant(node: Any) -> TypeGuard[fx.Node]:
    """Say whether an argument is a node that reads a stored tensor."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def constant_of(module: fx.GraphModule, node: Any) -> Tensor | None:
    """Return the stored tensor that an argument reads; None if it is anything else."""
    return get_tensor(module, str(node.target)) if is_constant(node) else None


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads a value, if there is one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def finish(module: fx.GraphModule) -> fx.GraphModule:
    """Drop what is unused, check the graph, and regenerate its code."""
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    used = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    owned = [*dict(module.named_parameters()), *dict(module.named_buffers())]
    for path in owned:
        if path not in used:
            parent, _, leaf = path.rpartition(".")
            delattr(module.get_submodule(parent), leaf)
    _store_in_order(module)
    module.graph.lint()
    module.recompile()
    return module


def _store_in_order(module: fx.GraphModule) -> None:
    """Store every view, such as a transposed weight, with its values in the order of its axes.

    The user's own tensors stay as they are. ``set_tensor`` says why.
    """
    for path, buffer in list(module.named_buffers()):
        if not buffer.is_contiguous():
            set_tensor(module, path, buffer)
    for path, parameter in list(module.named_parameters()):
        if not parameter.is_contiguous():
            owner, _, leaf = path.rpartition(".")
            stored = nn.Parameter(parameter.detach().contiguous(), parameter.requires_grad)
            setattr(module.get_submodule(owner), leaf, stored)


def output_nodes(module: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes whose values the graph returns, in order."""
    (result,) = next(n for n in module.graph.nodes if n.op == "output").args
    flat = result if isinstance(result, (list, tuple)) else [result]
    return [n for n in flat if isinstance(n, fx.Node)]


def input_nodes(module: fx.GraphModule) -> list[fx.Node]:
    """Return the placeholders, in order."""
    return [n for n in module.graph.nodes if n.op == "placeholder"]
