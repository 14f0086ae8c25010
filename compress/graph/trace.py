"""From a torch module to the canonical float graph that everything else works on."""

import copy
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from edgedl.compress.errors import first_line
from edgedl.compress.graph.carried import carrying
from edgedl.compress.graph.computed_weights import store_computed_weights
from edgedl.compress.graph.edit import copy_graph, input_nodes, output_nodes
from edgedl.compress.graph.flat_forward import FlatForward, free_batch
from edgedl.compress.graph.inlined import NotPlainError, check_plain, inline_blocks
from edgedl.compress.graph.lengths import shortened
from edgedl.compress.graph.own_values import drop_writes
from edgedl.compress.graph.passes.canonicalize import canonicalize
from edgedl.compress.graph.passes.check_passes import checks_passes
from edgedl.compress.graph.recurrent_shapes import know_recurrent_shapes
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.graph.values import value_of
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.subject import INPUT_TYPES
from edgedl.compress.subject.untouched import evaluating
from edgedl.runtime.backends.quiet import without_warnings
from edgedl.runtime.errors import EdgedlError

MAX_BATCH = 4096
EQUAL_WITHIN = 1e-4


class TraceError(EdgedlError):
    """The module cannot be turned into a graph, or the graph is not the module."""


def trace(
    module: nn.Module, example_inputs: tuple[Tensor, ...], free_axes: tuple[int, ...] = (0,)
) -> fx.GraphModule:
    """Export a module with a free batch size and canonicalise it. The module stays untouched.

    Args:
        module: network in evaluation mode.
        example_inputs: one tensor per argument, each [B, ...] with B >= 1; float32, or int64 or
            int32 for ids.
        free_axes: axes of every input whose size may differ from call to call; 0 is the batch.

    Returns:
        A graph of aten operators, float32.

    Raises:
        TraceError: torch.export refuses the module, it mixes training behaviour in, or the
            canonical graph differs from it by more than 1e-4 of its largest output, or does not
            compute another size of a free axis.
    """
    with evaluating(module):
        doubled = _doubled(example_inputs)
        exported = export_graph(module, example_inputs)
        with carrying(exported):
            graph = canonicalize(exported, check=doubled if checks_passes() else ())
        _check_interface(graph)
        _check_equal(module, graph, doubled)
        if any(free_axes):
            _check_other_lengths(module, graph, shortened(doubled, free_axes))
    return graph


def export_graph(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """Return the graph of a module in evaluation mode, as torch.export writes it.

    It shares nothing with the module, which stays as it is. Its parameters have the module's names,
    its outputs those of the keys or fields under which forward returns them; a weight that the
    module computes of its parameters, by weight norm, is one itself. It writes neither into its
    buffers nor into its inputs.

    Raises:
        TraceError: torch.export refuses the module, or it computes what no file can.
    """
    if isinstance(module, TracedNetwork):
        return copy_graph(module.eval().graph)
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if not kinds <= {torch.float32}:
        raise TraceError(f"the module's parameters are {kinds.pop()}: call its .float() first")
    doubled = _doubled(example_inputs)
    flat = FlatForward(module)
    know_recurrent_shapes()
    try:
        shapes = free_batch(module, doubled, MAX_BATCH)
        with without_warnings(), flat.replaced():
            program = torch.export.export(module, doubled, dynamic_shapes=shapes)
    except EdgedlError:
        raise
    except Exception as error:
        # torch.export reports whatever the module's own code raises, in many classes.
        raise TraceError(
            f"torch.export cannot trace {type(module).__name__}{_place(error)}: "
            f"{first_line(error)}; the module must work for any batch size and have no "
            "data-dependent branches"
        ) from error
    with without_warnings():
        graph = copy.deepcopy(program.module())
    if not isinstance(graph, fx.GraphModule):
        raise TraceError(f"torch.export gave {type(graph).__name__}, expected a graph")
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and "_guards" in str(node.target):
            graph.graph.erase_node(node)
    try:
        inline_blocks(graph)
        check_plain(graph)
    except NotPlainError as error:
        raise TraceError(f"{type(module).__name__} uses {error}") from None
    drop_writes(graph)
    flat.name_outputs(graph)
    graph.recompile()
    store_computed_weights(graph)
    return graph


def _doubled(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return inputs of at least two samples: a batch of one would be taken for a constant."""
    return tuple(torch.cat([x, x])[: max(2, len(x))] for x in inputs)


def _copied(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return inputs that a module may write into."""
    return tuple(x.clone() for x in inputs)


def _place(error: BaseException) -> str:
    """Return where in the user's own code an error comes from, if its traceback shows it."""
    places = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        arguments = frame.f_code.co_varnames[:1]
        module = frame.f_locals.get(arguments[0]) if arguments else None
        own = type(module).__module__.partition(".")[0] not in ("torch", "edgedl")
        if isinstance(module, nn.Module) and own and frame.f_code.co_name == "forward":
            name = Path(frame.f_code.co_filename).name
            places.append(f" in {type(module).__name__} ({name}, line {line})")
    return places[-1] if places else ""


def _check_interface(graph: fx.GraphModule) -> None:
    inputs = input_nodes(graph)
    for node in [*inputs, *output_nodes(graph)]:
        value = value_of(node)
        if value is None:
            continue
        if node in inputs and str(value.dtype).removeprefix("torch.") not in INPUT_TYPES:
            raise TraceError(
                f"input '{node.name}' is {value.dtype}: it can be {', '.join(INPUT_TYPES)}"
            )
        if node not in inputs and value.dtype != torch.float32:
            advice = "torch.view_as_real(y)" if value.dtype.is_complex else "y.float()"
            raise TraceError(
                f"output '{node.name}' is {value.dtype}: it must be float32, return {advice}"
            )
        if 0 in value.shape[1:]:
            raise TraceError(
                f"output '{node.name}' is empty: it has the shape {list(value.shape)}; leave it out"
            )
        if value.ndim == 0 or isinstance(value.shape[0], int):
            raise TraceError(
                f"output '{node.name}' has the shape {list(value.shape)}: its first dimension "
                "must be the batch"
            )


def _check_other_lengths(
    module: nn.Module, graph: fx.GraphModule, inputs: tuple[Tensor, ...]
) -> None:
    sizes = [list(x.shape) for x in inputs]
    try:
        with torch.no_grad():
            as_tuple(module(*_copied(inputs)))
    except Exception as error:
        raise TraceError(
            f"the module does not take inputs {sizes}, though its Subject's free_axes say so: "
            f"{first_line(error)}"
        ) from error
    try:
        _check_equal(module, graph, inputs)
    except Exception as error:
        raise TraceError(
            f"the traced graph does not compute inputs {sizes} as the module does "
            f"({first_line(error)}): set free_axes=(0,) in the Subject for one fixed size"
        ) from error


def _check_equal(module: nn.Module, graph: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        expected = as_tuple(module(*_copied(inputs)))
        again = as_tuple(module(*_copied(inputs)))
        found = as_tuple(graph(*_copied(inputs)))
    for index, (a, second, b) in enumerate(zip(expected, again, found, strict=True)):
        if not torch.isfinite(a).all():
            raise TraceError(f"output {index} of the module is not finite on its example inputs")
        if (a - second).abs().max() > EQUAL_WITHIN * max(1.0, float(a.abs().max())):
            raise TraceError(
                f"{type(module).__name__} answers the same inputs differently the second time, by "
                f"{float((a - second).abs().max()):.2g} in output {index}: files are not random "
                "and keep no state between calls; remove randomness in evaluation mode, and "
                "give a state as an input and return the next one as an output"
            )
        if (a - b).abs().max() > EQUAL_WITHIN * max(1.0, float(a.abs().max())):
            raise TraceError(
                f"the traced graph differs from the module by {float((a - b).abs().max()):.2g} in "
                f"output {index}: does its forward depend on randomness or on training mode?"
            )
