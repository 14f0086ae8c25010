"""Operators that stay float although they stand between quantized ones, in a converted TFLite file.

The converter makes an int8 operator of each that has one. TFLite's int8 kernels of these stand
outside XNNPACK and are slower than its floats with a conversion before and behind them: with a
division between two layers LiteRT's own int8 file takes nine times as long as float32
(``benchmarks.runtimes.operator_costs``).
"""

from typing import Any

from edgedl.compress.export.tflite.file import TfliteFile

KINDS = ("ABS", "DIV", "EXP")
# Of the operators between floats and int8.
VERSION = 2


def compute_in_float(model: bytes) -> bytes:
    """Return a model whose int8 operators of these kinds compute floats, between two conversions.

    A model without one comes back as it is.
    """
    file = TfliteFile(model)
    int8 = file.schema.TensorType.INT8
    found = [op for kind in KINDS for op in file.operators(kind)]
    taken = [op for op in found if file.graph.tensors[op.outputs[0]].type == int8]
    for operator in taken:
        _convert_around(file, operator)
    return file.pack() if taken else model


def _convert_around(file: TfliteFile, operator: Any) -> None:
    place = file.graph.operators.index(operator)
    read = [_float_tensor(file, int(i), f"_float_{place}") for i in operator.inputs]
    for source, value in zip(operator.inputs, read, strict=True):
        made = file.insert(place, "DEQUANTIZE", VERSION, [int(source)], [value])
        made.builtinOptionsType = file.schema.BuiltinOptions.DequantizeOptions
        made.builtinOptions = file.schema.DequantizeOptionsT()
    result = int(operator.outputs[0])
    computed = _float_tensor(file, result, "_float")
    behind = file.graph.operators.index(operator) + 1
    made = file.insert(behind, "QUANTIZE", VERSION, [computed], [result])
    made.builtinOptionsType = file.schema.BuiltinOptions.QuantizeOptions
    made.builtinOptions = file.schema.QuantizeOptionsT()
    operator.inputs, operator.outputs = read, [computed]


def _float_tensor(file: TfliteFile, like: int, suffix: str) -> int:
    made = file.add_tensor(like, file.shape(like), suffix)
    tensor = file.graph.tensors[made]
    tensor.type, tensor.quantization = file.schema.TensorType.FLOAT32, None
    return made
