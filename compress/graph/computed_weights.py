"""Weights that a module computes of its parameters whenever it runs, stored as what they are.

Weight norm, spectral norm, standardized weights, and parametrizations of the user's own. Channels
cannot be followed through what a norm sums over. What is trained afterwards is the weight itself.
"""

import operator

import torch
from torch import Tensor, fx, nn

from edgedl.compress.graph.edit import finish
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators import reduction
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.stored import stored_value


def store_computed_weights(module: fx.GraphModule) -> None:
    """Replace what an exported graph computes of parameters alone, where channels get lost.

    Before: ``conv1d(x, _weight_norm(v, g))``. After: ``conv1d(x, w)``, a parameter.
    """
    computed, sources = _computed_of_parameters(module)
    # What is changed in place is not what its operator returns.
    changed = {p for node in computed if _writes(node) for p in sources[node]}
    found = False
    for node in list(module.graph.nodes):
        reader = next((user for user in node.users if user not in computed), None)
        if node not in computed or reader is None or not computed[node]:
            continue
        if changed & set(sources[node]):
            continue
        value = stored_value(module, node)
        if value is None or not value.is_floating_point():
            continue
        read = [operator.attrgetter(path)(module) for path in sources[node]]
        trained = any(tensor.requires_grad for tensor in read)
        path = _free_path(module, node, reader)
        parent, _, name = path.rpartition(".")
        parameter = nn.Parameter(value.detach().clone(), requires_grad=trained)
        module.get_submodule(parent).register_parameter(name, parameter)
        with module.graph.inserting_before(node):
            stored = module.graph.get_attr(path)
        stored.meta.update(node.meta)
        node.replace_all_uses_with(stored)
        found = True
    if found:
        for node in reversed(module.graph.nodes):
            # Checks of types among them, which nobody reads.
            if node.op != "get_attr" and node in computed and not node.users:
                module.graph.erase_node(node)
        finish(module)


def _writes(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _computed_of_parameters(
    module: fx.GraphModule,
) -> tuple[dict[fx.Node, bool], dict[fx.Node, tuple[str, ...]]]:
    """Return what is computed of stored tensors alone, and the paths of those.

    Of each node whether channels get lost on the way from a parameter to it.
    """
    computed: dict[fx.Node, bool] = {}
    sources: dict[fx.Node, tuple[str, ...]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            tensor = operator.attrgetter(str(node.target))(module)
            if not isinstance(tensor, Tensor):
                # The code of a block, such as one without gradients.
                continue
            computed[node] = False
            is_values = tensor.is_floating_point()
            sources[node] = (str(node.target),) if is_values else ()
        elif node.op == "call_function" and all(n in computed for n in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                continue
            read = node.all_input_nodes
            sources[node] = tuple(dict.fromkeys(p for n in read for p in sources[n]))
            row = row_of(node)
            loses = row.join_axes is None or row in reduction.ROWS
            computed[node] = any(computed[n] for n in read) or (loses and bool(sources[node]))
    return computed, sources


def _free_path(module: fx.GraphModule, node: fx.Node, reader: fx.Node) -> str:
    """Return where a weight is stored: as the weight of the layer that reads it, if that is free.

    A parametrized layer has its weight in a module of its own, so that the name is free there.
    """
    layer = layer_name(reader)
    try:
        owner = module.get_submodule(layer)
    except AttributeError:
        layer, owner = "", module
    wanted = "weight" if layer else node.name
    path = f"{layer}.{wanted}" if layer else wanted
    if not hasattr(owner, wanted):
        return path
    number = 1
    while hasattr(owner, f"{wanted}_{number}"):
        number += 1
    return f"{path}_{number}"
