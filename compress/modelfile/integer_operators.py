"""ONNX operators on integers (QOperator format): which input is what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class IntegerOperator:
    """Places in an operator's inputs.

    Attributes:
        kind: the float operator it stands for.
        data: values, the weight among them.
        output: scale of the output; its zero point stands behind it.
        weight: scale of the second value, where that may be a weight; its zero point stands behind.
    """

    kind: str
    data: Sequence[int]
    output: int
    weight: int | None = None

    def values(self, node: "onnx.NodeProto") -> list[str]:
        """Return the names of the values that a node reads."""
        return [node.input[i] for i in self.data if i < len(node.input) and node.input[i]]


# More than any concatenation has; the places of its operands have no end.
MOST_INPUTS = 2**16
INTEGER_OPERATORS = {
    "QLinearConv": IntegerOperator("Conv", (0, 3, 8), 6, 4),
    "QLinearMatMul": IntegerOperator("MatMul", (0, 3), 6, 4),
    "QGemm": IntegerOperator("Gemm", (0, 3, 6), 7, 4),
    "QLinearAdd": IntegerOperator("Add", (0, 3), 6, 4),
    "QLinearMul": IntegerOperator("Mul", (0, 3), 6, 4),
    "QLinearConcat": IntegerOperator("Concat", range(2, MOST_INPUTS, 3), 0),
    "QLinearAveragePool": IntegerOperator("AveragePool", (0,), 3),
    "QLinearGlobalAveragePool": IntegerOperator("GlobalAveragePool", (0,), 3),
    "QLinearLeakyRelu": IntegerOperator("LeakyRelu", (0,), 3),
    "QLinearSigmoid": IntegerOperator("Sigmoid", (0,), 3),
    "QLinearSoftmax": IntegerOperator("Softmax", (0,), 3),
}
