"""The ONNX form of quantizing to E4M3 and back."""

from collections.abc import Callable
from typing import Any

from edgedl.compress.encodings.float8 import dequantize_float8, quantize_float8


def float8_translations() -> dict[Any, Callable[..., Any]]:
    """Return torch operator -> function that writes it as ONNX, for ``torch.onnx.export``.

    Source: ONNX operator specification, "QuantizeLinear" and "DequantizeLinear" (opset 19): the
    type of the zero point is that of the quantized values.
    """
    from onnxscript import opset20

    op: Any = opset20

    def quantize(x: Any, scale: Any, zero_point: Any) -> Any:
        return op.QuantizeLinear(x, scale, zero_point)

    def dequantize(x: Any, scale: Any, zero_point: Any, axis: int) -> Any:
        return op.DequantizeLinear(x, scale, zero_point, axis=axis)

    overloads = quantize_float8._opoverload, dequantize_float8._opoverload
    return dict(zip(overloads, (quantize, dequantize), strict=True))
