"""Put integer weights into a float32 ONNX file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from edgedl.compress.encodings.grouped import GroupedWeight
from edgedl.compress.export.weight_table import WeightTable, pack_int4

MICROSOFT = "com.microsoft"
# What MatMulNBits takes as block_size; of equal scales, the fewest blocks are the smallest file.
KERNEL_BLOCKS = (16, 32, 64, 128, 256)
CHANNEL_BLOCK = 128
# Inputs and outputs stay float32; another level would round them to int8 on the way.
FLOAT32_ACCURACY = 1
PRODUCTS = ("MatMul", "Gemm")


def write_weights(model: bytes, weights: Mapping[str, GroupedWeight], kernels: bool) -> bytes:
    """Return a float32 model that holds weights as integers.

    Args:
        model: of opset 21 or later without ``kernels``.
        weights: path -> integers.
        kernels: whether the runtime has ONNX Runtime's own operators. Then group-wise and 4-bit
            products become ``MatMulNBits``, which computes in float32; 8 bits per channel are read
            by a ``DequantizeLinear``: on x86 the 8-bit ``MatMulNBits`` took three times as long as
            that. Otherwise all are behind ``DequantizeLinear``.

    Raises:
        ExportError: a weight is not in the model as it is in the table.
    """
    return _Rewriter(model, weights, kernels).rewrite()


class _Rewriter:
    """One model on its way from float weights to integers."""

    def __init__(self, model: bytes, weights: Mapping[str, GroupedWeight], kernels: bool) -> None:
        self._model = onnx.load_from_string(model)
        self._graph = self._model.graph
        self._table = WeightTable(weights)
        self._kernels = kernels
        self._constants = {t.name: t for t in self._graph.initializer}
        self._added: dict[str, onnx.TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._dequantized: set[str] = set()

    def rewrite(self) -> bytes:
        for node in list(self._graph.node):
            if node.op_type in PRODUCTS:
                node = self._product(node)
            elif node.op_type == "Gather":
                node = self._lookup(node)
            elif node.op_type == "Conv":
                found = self._find(node.input[1], turned=False)
                if found is not None:
                    node.input[1] = self._dequantize(*found, turned=False)
            self._nodes.append(node)
        self._table.check_complete()
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._graph.node for name in node.input}
        tensors = [t for n, t in {**self._constants, **self._added}.items() if n in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(tensors)
        if any(node.domain == MICROSOFT for node in self._graph.node):
            self._model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        onnx.checker.check_model(self._model)
        return bytes(self._model.SerializeToString())

    def _product(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return what computes a product with a constant, the node itself if that stays float."""
        name, turned = node.input[1], node.op_type == "MatMul"
        if node.op_type == "Gemm":
            turned = not _attribute(node, "transB", 0)
        found = self._find(name, turned)
        if found is None:
            return node
        path, weight = found
        plain = node.op_type == "MatMul" or (
            not _attribute(node, "transA", 0)
            and _attribute(node, "alpha", 1.0) == _attribute(node, "beta", 1.0) == 1.0
        )
        if self._kernels and plain and not (weight.bits == 8 and weight.per_channel):
            return self._kernel(node, path, weight)
        if self._kernels and node.op_type == "MatMul":
            # Left as it is, ONNX Runtime makes of it a MatMulNBits that rounds its inputs to int8.
            node.op_type, node.domain = "FusedMatMul", MICROSOFT
            node.attribute.append(helper.make_attribute("transB", 1))
            turned = False
        node.input[1] = self._dequantize(path, weight, turned)
        return node

    def _find(self, name: str, turned: bool) -> tuple[str, GroupedWeight] | None:
        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            return None
        values = numpy_helper.to_array(tensor)
        return self._table.find(values.T if turned else values)

    def _kernel(self, node: onnx.NodeProto, path: str, weight: GroupedWeight) -> onnx.NodeProto:
        """Return a ``MatMulNBits`` in place of a product.

        Source: ONNX Runtime, "ContribOperators.md", MatMulNBits: B [N, blocks, bytes], its integers
        shifted by half their range, the first of two in the low half of a byte.
        """
        block = weight.group_size if weight.group_size in KERNEL_BLOCKS else CHANNEL_BLOCK
        outputs, inputs = weight.integers.shape
        blocks = -(-inputs // block)
        content = _shifted_bytes(weight, blocks * block)
        shape = (outputs, blocks, block * weight.bits // 8)
        names = [
            self._store(f"{path}.{weight.bits}bit", content.reshape(shape)),
            self._store(f"{path}.scales", _scales_of_blocks(weight, blocks)),
        ]
        bias = ["", "", node.input[2]] if len(node.input) > 2 else []
        return helper.make_node(
            "MatMulNBits",
            [node.input[0], *names, *bias],
            list(node.output),
            name=node.name,
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=weight.bits,
            block_size=block,
            accuracy_level=FLOAT32_ACCURACY,
        )

    def _lookup(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return what looks up rows of a table, the node itself if that stays float.

        ONNX Runtime would dequantize the whole table for every sentence; its own operator does the
        rows that are looked up.

        Source: ONNX Runtime, "ContribOperators.md", GatherBlockQuantized.
        """
        found = self._find(node.input[0], turned=False)
        if found is None:
            return node
        path, weight = found
        width = weight.integers.shape[1]
        fitting = [b for b in KERNEL_BLOCKS if weight.group_size % b == 0]
        if not (self._kernels and fitting) or _attribute(node, "axis", 0) != 0:
            node.input[0] = self._dequantize(path, weight, turned=False)
            return node
        block = fitting[-1]
        names = [
            self._store(f"{path}.{weight.bits}bit.rows", _shifted_bytes(weight, width)),
            self._store(f"{path}.scales.rows", _scales_of_blocks(weight, width // block)),
        ]
        return helper.make_node(
            "GatherBlockQuantized",
            [names[0], node.input[1], names[1]],
            list(node.output),
            name=node.name,
            domain=MICROSOFT,
            bits=weight.bits,
            block_size=block,
            gather_axis=0,
            quantize_axis=1,
        )

    def _dequantize(self, path: str, weight: GroupedWeight, turned: bool) -> str:
        """Return the name of a weight's values, computed by a ``DequantizeLinear``."""
        suffix = ".turned" if turned else ""
        result = f"{path}.dequantized{suffix}"
        if result in self._dequantized:
            return result
        self._dequantized.add(result)
        integers, scales = weight.integers.numpy(), weight.scales.numpy()
        names = [f"{path}.int{weight.bits}{suffix}", f"{path}.scales{suffix}"]
        self._store_integers(names[0], integers.T if turned else integers, weight.bits)
        if weight.per_channel:
            self._store(names[1], scales[:, 0])
            settings: dict[str, Any] = {"axis": int(turned)}
        else:
            self._store(names[1], scales.T if turned else scales)
            settings = {"axis": int(not turned), "block_size": weight.group_size}
        self._nodes.append(helper.make_node("DequantizeLinear", names, [result], **settings))
        return result

    def _store(self, name: str, values: npt.NDArray[Any]) -> str:
        self._added[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _store_integers(self, name: str, values: npt.NDArray[np.int8], bits: int) -> None:
        if bits == 8:
            self._store(name, values)
            return
        content = pack_int4(np.ascontiguousarray(values))
        tensor = helper.make_tensor(name, onnx.TensorProto.INT4, values.shape, content, raw=True)
        self._added[name] = tensor


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _shifted_bytes(weight: GroupedWeight, width: int) -> npt.NDArray[np.uint8]:
    """Return integers shifted by half their range, uint8 [C_out, bytes]; rows end in zeros."""
    rows = len(weight.integers)
    padded = np.zeros((rows, width), np.int8)
    padded[:, : weight.integers.shape[1]] = weight.integers.numpy()
    shifted = np.asarray(padded.astype(np.int16) + 2 ** (weight.bits - 1), np.uint8)
    if weight.bits == 8:
        return shifted
    packed: npt.NDArray[np.uint8] = np.frombuffer(pack_int4(shifted.view(np.int8)), np.uint8)
    return packed.reshape(rows, -1)


def _scales_of_blocks(weight: GroupedWeight, blocks: int) -> npt.NDArray[np.float32]:
    """Return the scale of every block, float32 [C_out, blocks]; a group may have several."""
    scales: npt.NDArray[np.float32] = weight.scales.numpy()
    repeated: npt.NDArray[np.float32] = np.repeat(scales, blocks // scales.shape[1], axis=1)
    return repeated
