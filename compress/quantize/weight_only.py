"""The stage that stores weights as 4- or 8-bit integers and leaves everything else in float."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.clipping import WeightObserver
from edgedl.compress.encodings.grouped import (
    GroupedWeight,
    WeightOnlyNetwork,
    fitting_group,
    group_scales,
    round_to_groups,
)
from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_constant,
    is_constant,
)
from edgedl.compress.graph.layers import find_operators, layer_name
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.operator import argument, set_argument
from edgedl.compress.graph.operators.table import is_weighted, row_of
from edgedl.compress.quantize.corrections.input_products import input_products
from edgedl.compress.quantize.corrections.rounding import LARGEST, round_groups_with_feedback
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.runtime.errors import BadInputError

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)
CONVOLUTION_BITS = 8


class QuantizeWeights(Stage, frozen=True, tag="quantize_weights"):
    """Weight-only quantization: integer weights, float32 activations and arithmetic.

    Linear layers and tables of embeddings are quantized group-wise. Convolutions get 8 bits per
    output channel, whatever ``bits`` is: runtimes have no kernels for them, they only get smaller.
    Everything is symmetric.

    Attributes:
        bits: of linear layers and embeddings, 4 or 8.
        group_size: inputs that share a step: 32, 64, 128, or null for all of an output channel. A
            layer whose inputs it does not divide takes its half or quarter, not below 16, else one
            step per channel; the history names such layers.
        rounding: "nearest", or "gptq": linear layers of up to 8,192 inputs with feedback from what
            they read, the others to nearest.
        weight_observer: how the step of a group is chosen, "minmax" or "mse".
        keep_float: layers that stay float32: module paths, with all that is inside, or wildcards.
        samples: calibration samples of "gptq"; memory does not grow with them.
        batch_size: samples per forward pass.
    """

    works_on: ClassVar[Phase] = Phase.FLOAT
    yields: ClassVar[Phase] = Phase.QUANTIZED

    bits: int = 4
    group_size: int | None = 32
    rounding: Literal["nearest", "gptq"] = "nearest"
    weight_observer: WeightObserver = "mse"
    keep_float: tuple[str, ...] = ()
    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32

    def __post_init__(self) -> None:
        """Refuse widths and groups that no runtime has a kernel for."""
        super().__post_init__()
        if self.bits not in BITS:
            raise BadInputError(f"bits is {self.bits}: weights can be stored in 4 or 8")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            raise BadInputError(
                f"group_size is {self.group_size}: it can be 32, 64, 128, or null for one step per "
                "output channel"
            )

    @property
    def quantizes_to(self) -> str:
        """Precision of the network: it has no table of encodings."""
        return "weight-only or dynamic"

    def milder(self) -> "QuantizeWeights | None":
        """Take 8 bits."""
        most = max(BITS)
        return msgspec.structs.replace(self, bits=most) if self.bits < most else None

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Round the weights; the float network stays.

        Raises:
            BadInputError: there is no layer to quantize, or a name in ``keep_float`` matches none.
        """
        graph = state.graph
        weights = self._weights(graph)

        def batches() -> Iterable[tuple[Tensor, ...]]:
            return calibration_inputs(state.subject.task, self.samples, self.batch_size)

        rounded, smaller = self._round(graph, weights, batches)
        network = _with_weights(graph, rounded, self.bits)
        return replace(state, weights=network), {"other_groups": smaller}

    def _weights(self, graph: fx.GraphModule) -> list["_Weight"]:
        """Return the weights to quantize, each once."""
        layers = [n for n in graph.graph.nodes if _holds_weight(graph, n)]
        if not layers:
            raise BadInputError(
                "quantize_weights finds no linear layer, convolution or embedding in the network: "
                "use the recipe float or static_w8c_a8"
            )
        kept = find_operators(graph, self.keep_float)
        readers: dict[tuple[str, Any], list[fx.Node]] = {}
        for node in layers:
            if node not in kept:
                readers.setdefault((_path(node), node.target), []).append(node)
        if not readers:
            raise BadInputError("keep_float leaves quantize_weights no layer to quantize")
        weights = [_Weight.of(graph, nodes) for nodes in readers.values()]
        if self.bits == 4 and all(w.is_convolution for w in weights):
            raise BadInputError(
                "4 bits are for linear layers and embeddings, and there is none to quantize: "
                "use bits: 8 for convolutions"
            )
        return weights

    def _round(
        self,
        graph: fx.GraphModule,
        weights: list["_Weight"],
        batches: Callable[[], Iterable[tuple[Tensor, ...]]],
    ) -> tuple[list[tuple["_Weight", GroupedWeight]], tuple[str, ...]]:
        """Return every weight with its integers, and which are not grouped as wanted."""
        bits = [CONVOLUTION_BITS if weight.is_convolution else self.bits for weight in weights]
        steps: list[Tensor] = []
        notes: list[str] = []
        for weight, width in zip(weights, bits, strict=True):
            inputs = weight.value[0].numel()
            size = fitting_group(inputs, None if weight.is_convolution else self.group_size)
            flat = weight.value.reshape(len(weight.value), -1)
            steps.append(group_scales(flat, size, width, self.weight_observer))
            if not weight.is_convolution and size != (self.group_size or inputs):
                notes.append(f"{weight.name}: {size} of {inputs} inputs")
        found = [
            round_to_groups(weight.value, scales, width)
            for weight, scales, width in zip(weights, steps, bits, strict=True)
        ]
        if self.rounding == "gptq":
            fitting = [
                i for i, w in enumerate(weights) if w.is_linear and w.value.shape[1] <= LARGEST
            ]
            products = input_products(graph, [weights[i].readers for i in fitting], batches)
            for index, moments in zip(fitting, products, strict=True):
                value, scales = weights[index].value, steps[index]
                integers = round_groups_with_feedback(value, moments, scales, self.bits)
                found[index] = GroupedWeight(integers, scales, self.bits)
        return list(zip(weights, found, strict=True)), tuple(notes)


@dataclass(frozen=True)
class _Weight:
    """A weight of the float graph and the operators of one kind that read it.

    Attributes:
        readers: at least one.
        value: float32 [C_out, ...], output channels first.
    """

    readers: list[fx.Node]
    value: Tensor

    @classmethod
    def of(cls, graph: fx.GraphModule, readers: list[fx.Node]) -> "_Weight":
        return cls(readers, get_tensor(graph, _path(readers[0])))

    @property
    def is_linear(self) -> bool:
        return row_of(self.readers[0]) is LINEAR

    @property
    def is_convolution(self) -> bool:
        return row_of(self.readers[0]) in CONVOLUTIONS

    @property
    def name(self) -> str:
        return layer_name(self.readers[0]) or self.readers[0].name


def _holds_weight(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether a node reads a weight that can be stored as integers."""
    has_weight = is_weighted(node) or row_of(node).reads_table
    return has_weight and is_constant(argument(node, "weight"))


def _path(node: fx.Node) -> str:
    return str(argument(node, "weight").target)


def _with_weights(
    graph: fx.GraphModule, rounded: list[tuple[_Weight, GroupedWeight]], bits: int
) -> WeightOnlyNetwork:
    """Return a copy of the graph that computes with the dequantized weights, and its table."""
    changed = copy_graph(graph)
    nodes = {node.name: node for node in changed.graph.nodes}
    table = {}
    for weight, integers in rounded:
        first = nodes[weight.readers[0].name]
        path = f"{_path(weight.readers[0])}_{first.name}_dequantized"
        constant = insert_constant(changed, first, path, integers.dequantized())
        for reader in weight.readers:
            set_argument(nodes[reader.name], "weight", constant)
        table[path] = integers
    return WeightOnlyNetwork(finish(changed), table, bits)
