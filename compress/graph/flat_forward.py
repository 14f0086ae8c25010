"""Have torch.export see a module as a function of tensors that returns a tuple of tensors."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.subject.outputs import named_outputs
from edgedl.compress.subject.untouched import evaluating


class FlatForward:
    """A module's forward for the time of an export, and the names of what it returned."""

    def __init__(self, module: nn.Module) -> None:
        """Take the module."""
        self._module = module
        self.names: tuple[str, ...] = ()

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Have the module return a flat tuple of floats; None is left out of it.

        A tensor of floats comes as it is. Afterwards the module is as it was.
        """
        original = self._module.forward

        @functools.wraps(original)
        def flat(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            if isinstance(outputs, Tensor) and outputs.is_floating_point():
                return outputs
            named = named_outputs(outputs)
            self.names = tuple(name for name, _ in named)
            return tuple(tensor for _, tensor in named)

        with evaluating(self._module):
            vars(self._module)["forward"] = flat
            yield

    def name_outputs(self, graph: fx.GraphModule) -> None:
        """Give the nodes that the graph returns the names of the keys or fields they were under."""
        named = zip(self.names, output_nodes(graph), strict=False)
        done: set[fx.Node] = set()
        for name, node in named:
            if name.isidentifier() and node.op == "call_function" and node not in done:
                node._rename(name)
            done.add(node)


def free_batch(module: nn.Module, inputs: tuple[Tensor, ...], largest: int) -> dict[str, Any]:
    """Return what torch.export takes for a free first axis of every input.

    Args:
        module: takes the inputs in order; some may go into ``*args``.
        inputs: each [B, ...].
        largest: batch size.

    Raises:
        TypeError: forward takes other arguments.
    """

    def free(value: Any) -> Any:
        if isinstance(value, Tensor):
            return {0: torch.export.Dim("batch", min=1, max=largest)}
        return tuple(free(part) for part in value)

    bound = inspect.signature(module.forward).bind(*inputs)
    return {name: free(value) for name, value in bound.arguments.items()}
