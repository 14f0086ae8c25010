"""What a row of the operator table says, and how the arguments of an operator are read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.edit import is_constant
from edgedl.compress.graph.joined_axes import JoinedAxes, SizesAfterCut

aten = torch.ops.aten
V = TypeVar("V", bound="View")


class Ranges(Enum):
    """What an operator does with the ranges of what it reads, where it computes in integers."""

    # It has no integer form: it computes in float.
    FLOAT = auto()
    # Its result has a range of its own.
    COMPUTES = auto()
    # Its result lies among the values of its first input: both share one encoding.
    PASSES = auto()
    # All that it reads and its result share one encoding.
    JOINS = auto()
    # It clips, and runtimes fold it into the requantization of the operator before it.
    FUSES = auto()
    # Integer kernels have one grid for its result, whatever they read.
    FIXED = auto()


class Product(NamedTuple):
    """Multiply-accumulates: the product of the sizes of some axes and the places, over samples."""

    axes: tuple[Axis, ...]
    places: int = 1
    samples: int = 1


AxesOf = Callable[[Any], list[Axis]]
Check = Callable[[fx.Node], bool]


def always(node: fx.Node) -> bool:
    """Return True."""
    return True


def never(node: fx.Node) -> bool:
    """Return False."""
    return False


def lets_all_through(node: fx.Node) -> tuple[float, float]:
    """Return that an operator clips nothing."""
    return -math.inf, math.inf


def no_products(of: AxesOf, node: fx.Node) -> list[Product]:
    """Return that an operator multiplies and sums nothing."""
    return []


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: what edgedl knows of it. The defaults are those of an operator without a row.

    Attributes:
        overloads: of torch; the first one names the row.
        ranges: what it does with them.
        passes_if: of ``PASSES``: whether a node only moves, chooses or averages values; one that
            does not computes in float.
        fixed_range: of ``FIXED``: what the 8-bit grid covers.
        bounds: of ``FUSES``: the smallest and largest value that a node lets through.
        folds_activation: whether runtimes fold an activation behind a node into it.
        homogeneous: f(s x) = s f(x) for every s > 0, element by element.
        weight_axis: of the output channels in its weight; -1 if it has none.
        channel_axis: of the channels in its result.
        reads_table: whether its weight is a table to look up in, which is on the result's grid.
        masks: whether it writes a huge negative number where softmax shall see nothing.
        chooses: whether its result is places, or values picked by their order: a small error of
            what it reads can change which.
        jumps: whether a small error of a float that it reads can change its result by a whole step.
        expands: names of the arguments whose small values its result makes large: a root, a
            logarithm, a denominator.
        counts_channels: whether what it divides by depends on how many channels there are.
        training: name of the argument that tells the modes apart, "" if there is none.
        macs: returns a node's multiply-accumulates, as products of the axes that are given.
        join_axes: makes the axes of a node the same that are cut together. None: no channel goes
            through, all that it reads and returns stays whole.
        resize: writes the sizes after a cut into a node's arguments: (sizes, the node as it was,
            the node to change).
    """

    overloads: tuple[Any, ...]
    ranges: Ranges = Ranges.FLOAT
    passes_if: Check = always
    fixed_range: tuple[float, float] | None = None
    bounds: Callable[[fx.Node], tuple[float, float]] = lets_all_through
    folds_activation: Check = never
    homogeneous: bool = False
    weight_axis: int = -1
    channel_axis: int = 1
    reads_table: bool = False
    masks: bool = False
    chooses: bool = False
    jumps: bool = False
    expands: tuple[str, ...] = ()
    counts_channels: bool = False
    training: str = ""
    macs: Callable[[AxesOf, fx.Node], list[Product]] = no_products
    join_axes: Callable[[JoinedAxes, fx.Node], None] | None = None
    resize: Callable[[SizesAfterCut, fx.Node, fx.Node], None] | None = None

    @property
    def name(self) -> str:
        """Torch's name of it, by which targets list it."""
        return next((o.__name__.partition(".")[0] for o in self.overloads), "")

    @property
    def has_weight(self) -> bool:
        """Whether it is a layer: a convolution, transposed ones too, or a linear one."""
        return self.weight_axis >= 0

    @property
    def weighted(self) -> bool:
        """Whether it is a layer whose stored weight can be integers."""
        return self.ranges is Ranges.COMPUTES and self.has_weight

    @property
    def product(self) -> bool:
        """Whether it multiplies and sums in integers: where the time of a network goes."""
        return self.ranges is Ranges.COMPUTES and self.macs is not no_products

    @property
    def reads_constants(self) -> bool:
        """Whether constants that it reads, weights and biases apart, are on grids of their own."""
        return self.reads_table or (
            self.ranges in (Ranges.COMPUTES, Ranges.JOINS) and not self.weighted
        )

    @property
    def matrix_product(self) -> bool:
        """Whether it does so with two activations."""
        return self.product and not self.weighted


def elementwise(axes: JoinedAxes, node: fx.Node) -> None:
    """Every operand's axes are the result's, but for those that are repeated."""
    for operand in node.all_input_nodes:
        axes.join_broadcast(node, axes.of(operand), axes.of(node))


@cache
def _schema(overload: Any) -> dict[str, tuple[int, Any]]:
    """Return the position and default of each argument of an overload."""
    described = enumerate(overload._schema.arguments)
    return {a.name: (position, a.default_value) for position, a in described}


def _named(node: fx.Node, name: str) -> str:
    """Return an argument's name in the schema, where "input" may be called "self"."""
    schema = _schema(node.target)
    return "self" if name == "input" and "self" in schema else name


def argument(node: fx.Node, name: str) -> Any:
    """Return an argument by its name in the operator's schema, or its default.

    Raises:
        KeyError: the operator has no argument of that name.
    """
    name = _named(node, name)
    position, default = _schema(node.target)[name]
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return all arguments of an operator by name."""
    return {name: argument(node, name) for name in _schema(node.target)}


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Write an argument by its name in the operator's schema."""
    name = _named(node, name)
    position, _ = _schema(node.target)[name]
    if position > len(node.args) or name in node.kwargs:
        node.update_kwarg(name, value)
    else:
        node.args = (*node.args[:position], value, *node.args[position + 1 :])


def first_input(node: fx.Node) -> Any:
    """Return the first argument of an operator; None of one that has none."""
    return next(iter((*node.args, *node.kwargs.values())), None)


def operands(node: fx.Node, count: int = 2) -> list[Any]:
    """Return the first arguments of an operator: those of arithmetic and of products."""
    return [argument(node, name) for name in list(_schema(node.target))[:count]]


def reads_activations(node: fx.Node) -> bool:
    """Say whether both operands are computed: neither numbers nor stored tensors."""
    return all(isinstance(a, fx.Node) and a.op != "get_attr" for a in operands(node))


def is_view(node: fx.Node) -> bool:
    """Say whether an operator's result may hold the memory of its input."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def has_padding(node: fx.Node) -> bool:
    """Say whether the windows of a convolution or pool reach over the edge."""
    padding = argument(node, "padding")
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


@dataclass(frozen=True)
class View:
    """The arguments of a node: each field is read by its name in the operator's schema."""

    @classmethod
    def of(cls: type[V], node: fx.Node) -> V:
        """Read the fields of a node.

        Raises:
            KeyError: the operator lacks one of them.
        """
        return cls(**{field.name: argument(node, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Weighted(View):
    """A convolution or linear layer: what it reads."""

    input: fx.Node
    weight: fx.Node
    bias: fx.Node | None

    @property
    def has_stored_weight(self) -> bool:
        """Whether the weight is a stored tensor, not computed."""
        return is_constant(self.weight)

    @property
    def is_stored(self) -> bool:
        """Whether the weight and the bias, if there is one, are stored tensors."""
        return self.has_stored_weight and (self.bias is None or is_constant(self.bias))

    @property
    def weight_path(self) -> str:
        """Where the weight is stored.

        Raises:
            TypeError: it is computed.
        """
        if not self.has_stored_weight:
            raise TypeError(f"the weight '{self.weight}' is not stored")
        return str(self.weight.target)

    @property
    def bias_path(self) -> str | None:
        """Where the bias is stored; None if there is none, or it is computed."""
        bias = self.bias
        return str(bias.target) if bias is not None and is_constant(bias) else None
