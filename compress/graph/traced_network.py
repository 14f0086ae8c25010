"""A traced graph as a module that can be trained: batch norm and dropout still tell the modes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from edgedl.compress.graph.operators.normalization import BATCH_NORM, BatchNorm
from edgedl.compress.graph.operators.operator import set_argument
from edgedl.compress.graph.operators.table import row_of

# Torch's default for the momentum of a batch norm.
_USUAL_MOMENTUM = 0.1


class TracedNetwork(nn.Module):
    """A network whose code is a graph of operators, so that it can be cut to other sizes.

    In training it is what the module would be, but for two things that a graph in evaluation mode
    no longer knows: attention in one operator has no dropout, and a batch norm of cumulative
    statistics (momentum None) takes moving ones.

    Attributes:
        graph: of aten operators, before canonicalization; its parameters and buffers have the
            names of the module it was traced from.
    """

    graph: fx.GraphModule

    def __init__(self, graph: fx.GraphModule) -> None:
        """Take a graph of ``export_graph``; it is the network's own from now on."""
        super().__init__()
        self.graph = graph
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the traced module returns."""
        return self.graph(*inputs)

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers by the names of the module it was traced from."""
        named = [*self.graph.named_parameters(), *self.graph.named_buffers()]
        return {name: tensor.detach().clone() for name, tensor in named}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``tensors`` gave; a tied parameter is there by its first name.

        Raises:
            RuntimeError: names or shapes are others, as torch says.
        """
        every = dict(tensors)
        first = {id(p): name for name, p in self.graph.named_parameters()}
        for name, parameter in self.graph.named_parameters(remove_duplicate=False):
            if name not in every and first[id(parameter)] in every:
                every[name] = every[first[id(parameter)]]
        self.graph.load_state_dict(every)

    def train(self, mode: bool = True) -> "TracedNetwork":
        """Switch batch norm, dropout and recurrent layers to training or back."""
        self.training = mode
        for node in self.graph.graph.nodes:
            if row_of(node).training:
                _switch(node, mode)
        self.graph.recompile()
        return self


def _switch(node: fx.Node, mode: bool) -> None:
    row = row_of(node)
    if row is BATCH_NORM:
        norm = BatchNorm.of(node)
        if norm.running_mean is None:
            # It takes the batch's statistics in either mode.
            return
        if norm.momentum == 0.0:
            set_argument(node, "momentum", _USUAL_MOMENTUM)
    set_argument(node, row.training, mode)
