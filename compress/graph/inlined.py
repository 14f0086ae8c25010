"""Blocks of a forward that torch.export writes as a graph of their own, put back where they were.

``torch.no_grad()`` and ``torch.autocast`` change nothing in a float32 network in evaluation mode.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

AUTOCAST = "wrap_with_autocast"


class NotPlainError(Exception):
    """A graph calls what has no operator; the message names it and says what to write instead."""


def inline_blocks(module: fx.GraphModule) -> None:
    """Put the operators of inner graphs in the place of their calls.

    Before: ``block = wrap_with_set_grad_enabled(False, submodule, x); y = block[0]``.
    After: the operators of the submodule, of which the last is ``y``.

    Raises:
        NotPlainError: a block computes in lower precision.
    """
    while calls := [(n, body) for n in module.graph.nodes if (body := _body(n)) is not None]:
        for node, body in calls:
            _refuse_low_precision(node)
            _inline(module, node, body)
    module.delete_all_unused_submodules()


def check_plain(module: fx.GraphModule) -> None:
    """Refuse branches, loops and other calls that are no operators.

    Raises:
        NotPlainError: there is one.
    """
    for node in module.graph.nodes:
        if node.op != "call_function" or isinstance(node.target, torch._ops.OpOverload):
            continue
        name = getattr(node.target, "__name__", str(node.target))
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise NotPlainError(
                f"torch's '{name}': files have neither branches nor loops over data, "
                "write it with operators, such as torch.where"
            )
        if "functorch" in str(getattr(node.target, "__module__", "")):
            raise NotPlainError(
                "torch.vmap or another transformation of torch.func: write the operators for the "
                "whole batch"
            )


def _body(node: fx.Node) -> fx.Node | None:
    """Return the node that reads the one inner graph of a call; None for any other node."""
    if not isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    owner = node.graph.owning_module
    bodies = [
        a
        for a in node.args
        if isinstance(a, fx.Node)
        and a.op == "get_attr"
        and owner is not None
        and isinstance(_at(owner, str(a.target)), fx.GraphModule)
    ]
    return bodies[0] if len(bodies) == 1 and not node.kwargs else None


def _at(module: fx.GraphModule, path: str) -> Any:
    return operator.attrgetter(path)(module)


def _refuse_low_precision(node: fx.Node) -> None:
    if getattr(node.target, "__name__", "") != AUTOCAST:
        return
    device, dtype, enabled, *_ = node.args
    if enabled and device == "cpu":
        raise NotPlainError(
            f"torch.autocast in {dtype} on the CPU: files compute in the precision that the recipe "
            "says, leave it out or give it enabled=False"
        )


def _inline(module: fx.GraphModule, call: fx.Node, reader: fx.Node) -> None:
    path = str(reader.target)
    inner: fx.GraphModule = _at(module, path)
    given = call.args[call.args.index(reader) + 1 :]
    values: dict[fx.Node, Any] = {}
    results: Any = ()
    arguments: Sequence[Any] = list(given)
    taken = 0
    with module.graph.inserting_before(call):
        for node in inner.graph.nodes:
            if node.op == "placeholder":
                values[node] = arguments[taken]
                taken += 1
            elif node.op == "output":
                results = fx.map_arg(node.args[0], lambda n: values[n])
            else:
                copied = module.graph.node_copy(node, lambda n: values[n])
                if node.op == "get_attr":
                    copied.target = f"{path}.{node.target}"
                values[node] = copied
    _replace(module, call, results)


def _replace(module: fx.GraphModule, call: fx.Node, results: Any) -> None:
    """Let those that read parts of a call's result read the values."""
    if isinstance(results, fx.Node):
        call.replace_all_uses_with(results)
    for user in list(call.users):
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(call)
