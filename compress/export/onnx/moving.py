"""ONNX nodes that compute nothing."""

# Nodes that change no value, or turn floats into integers and back.
MOVING_NODES = {
    "Cast",
    "Concat",
    "DepthToSpace",
    "DequantizeLinear",
    "Expand",
    "Gather",
    "MaxPool",
    "NhwcMaxPool",
    "QuantizeLinear",
    "ReorderInput",
    "ReorderOutput",
    "Reshape",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
