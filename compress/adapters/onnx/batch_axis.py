"""Where a file that was exported for a batch of one has a number and means the batch."""

from collections.abc import Sequence

from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.values import (
    Constant,
    Value,
    is_known,
    product,
    sizes_of,
    tensor_of,
)

# A batch that is tried, a size that hardly any other axis has.
PROBE = 7


def batch_axis(node: Node, inputs: Sequence[Value | None]) -> int | None:
    """Return where a node has a number and means a batch, of the size that is tried."""
    sizes = [tuple(tensor_of(x).shape) for x in inputs if isinstance(x, Tensor | Constant)]
    if node.operator == "Concat":
        first = {shape[0] for shape in sizes if shape}
        return 0 if node.get("axis", 1) != 0 and first == {1, PROBE} else None
    if node.operator != "Reshape" or not isinstance(inputs[0], Tensor) or not sizes[0]:
        return None
    target = node.get("shape", None)
    if target is None:
        if not is_known(inputs[1]):
            return None
        target = sizes_of(inputs[1], "sizes")  # type: ignore[arg-type]
    if not node.get("allowzero", 0):
        target = [sizes[0][i] if n == 0 else n for i, n in enumerate(target)]
    if -1 not in target:
        # A 1 is the batch itself; without any, the first number is the batch times another.
        meant = product(sizes[0]) == PROBE * product(target)
        return (list(target).index(1) if 1 in target else 0) if meant and target else None
    rest = product([n for n in target[1:] if n != -1])
    whole = target[0] == 1 and product(sizes[0][1:]) % max(rest, 1) == 0
    return 0 if whole and sizes[0][0] == PROBE else None
