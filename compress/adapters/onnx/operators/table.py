"""Every operator of ONNX that is imported, and the function that computes it in torch.

A function takes the node and its inputs, None for one that is left out, and returns one value or a
tuple of them, None for an output that it does not give.
"""

from edgedl.compress.adapters.onnx.operators import elementwise, products, resizing, shape, summing

OPERATORS = {
    **elementwise.OPERATORS,
    **products.OPERATORS,
    **resizing.OPERATORS,
    **shape.OPERATORS,
    **summing.OPERATORS,
}
