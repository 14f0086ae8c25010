"""Whether a changed network still has the outputs of the one it was made of."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from edgedl.compress.errors import first_line
from edgedl.compress.graph.lengths import shortened
from edgedl.compress.state import ModelState, StageUndoneError
from edgedl.compress.subject.outputs import as_tuple


def check_interface(before: ModelState, after: ModelState) -> None:
    """Compare the outputs of a network before and after a stage, for several sizes of its inputs.

    On the example inputs, on one sample more, and where other axes than the batch are free, on
    shorter inputs.

    Raises:
        StageUndoneError: their number, a shape or a type is another, or values became infinite.
    """
    known = list(_graphs(before))
    changed = [g for g in _graphs(after) if not any(g is k for k in known)]
    if not changed:
        return
    for inputs in _sizes(before):
        expected = _outputs(before.graph, inputs)
        for graph in changed:
            reason = _difference(expected, graph, inputs)
            if reason:
                raise StageUndoneError(reason)


def _graphs(state: ModelState) -> Iterator[fx.GraphModule]:
    yield state.graph
    if state.quantized is not None:
        yield state.quantized.graph
    if state.weights is not None:
        yield state.weights.graph


def _sizes(state: ModelState) -> Iterator[tuple[Tensor, ...]]:
    inputs = state.subject.example_inputs()
    yield inputs
    yield tuple(torch.cat([x, x[:1]]) for x in inputs)
    if any(state.subject.free_axes):
        yield shortened(inputs, state.subject.free_axes)


def _outputs(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return as_tuple(graph(*inputs))


def _difference(
    expected: tuple[Tensor, ...], graph: fx.GraphModule, inputs: Sequence[Tensor]
) -> str:
    sizes = ", ".join(str(list(x.shape)) for x in inputs)
    try:
        found = _outputs(graph, inputs)
    except Exception as error:
        # Torch reports sizes that do not fit in many classes.
        return f"the network that is left does not take inputs {sizes}: {first_line(error)}"
    if len(found) != len(expected):
        return f"the network that is left returns {len(found)} outputs, not {len(expected)}"
    for index, (a, b) in enumerate(zip(expected, found, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return (
                f"output {index} of the network that is left is {b.dtype} {list(b.shape)} for "
                f"inputs {sizes}, not {a.dtype} {list(a.shape)}"
            )
        if not torch.isfinite(b).all() and torch.isfinite(a).all():
            return f"output {index} of the network that is left is not finite"
    return ""
