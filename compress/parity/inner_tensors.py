"""The quantized tensors inside an emitted torch graph."""

from typing import Any

import torch
from torch import fx

from edgedl.compress.encodings.pair import Pair
from edgedl.compress.export.exporter import Centred, InnerTensor
from edgedl.compress.graph.edit import is_constant
from edgedl.runtime.backend import Array

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def quantize_nodes(graph: fx.GraphModule) -> dict[fx.Node, InnerTensor]:
    """Return the quantize operators of an emitted graph, by the name of what they quantize.

    Stored tensors, tables of embeddings among them, are not computed and not among them.
    """
    return {
        node: InnerTensor(pair.input.name, pair.scale, pair.zero_point)
        for node in graph.graph.find_nodes(op="call_function", target=_QUANTIZE)
        if not is_constant((pair := Pair.of(node)).input)
    }


class GraphIntegers:
    """Runs an emitted torch graph and keeps the integers of every quantized tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        """Find the quantize operators; nothing runs yet."""
        self._graph = graph
        self.tensors = quantize_nodes(graph)

    def read(self, inputs: tuple[Array, ...]) -> dict[str, Centred]:
        """Return centred integers by node name, in the order they are computed.

        Args:
            inputs: one array [N, ...] per input.
        """
        found: dict[str, Centred] = {}
        tensors = self.tensors

        class Recorder(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n in tensors:
                    found[tensors[n].name] = tensors[n].centre(value.numpy())
                return value

        with torch.no_grad():
            Recorder(self._graph).run(*(torch.tensor(x) for x in inputs))
        return found
