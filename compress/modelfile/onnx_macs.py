"""Multiply-accumulates of ONNX operators, from the shapes of what they read and write."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from edgedl.compress.modelfile.onnx_shapes import Shape

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Products:
    """What an operator reads and writes.

    Attributes:
        node: the operator.
        values: names of the values among its inputs; no scales, no zero points.
        shape: returns a value's shape for one sample by its name; None where that is not known.
        declared: the same for any number of samples.
    """

    node: onnx.NodeProto
    values: Sequence[str]
    shape: Callable[[str], Shape | None]
    declared: Callable[[str], Shape | None]

    def macs(self) -> int | None:
        """Return the multiply-accumulates: 0 if it has no products, None if they are unknown."""
        kind, count = self.node.op_type, _COUNTS.get(self.node.op_type)
        if count is not None:
            return count(self)
        standard = self.node.domain in _STANDARD and kind not in _UNCOUNTED
        return 0 if standard or kind in _WITHOUT_PRODUCTS else None

    def read(self, index: int) -> Shape | None:
        """Return the shape of a value that it reads."""
        return self.shape(self.values[index]) if index < len(self.values) else None

    @property
    def written(self) -> int | None:
        """The elements of its first output."""
        return _elements(self.shape(self.node.output[0]))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its attributes by name."""
        attributes = self.node.attribute
        return {a.name: onnx.helper.get_attribute_value(a) for a in attributes}


def _convolution(products: Products) -> int | None:
    """Every output sums over the weight [C_out, C_in / groups, ...] of its channel."""
    weight = products.read(1)
    return _times(products.written, _elements(weight[1:] if weight else None))


def _transposed_convolution(products: Products) -> int | None:
    """Every input is multiplied with the weight [C_in, C_out / groups, ...] of its channel."""
    weight = products.read(1)
    return _times(_elements(products.read(0)), _elements(weight[1:] if weight else None))


def _product(products: Products) -> int | None:
    settings = products.settings
    first = _inner(products.read(0), bool(settings.get("transA")), of_first=True)
    second = _inner(products.read(1), bool(settings.get("transB")), of_first=False)
    return _times(products.written, first if first is not None else second)


def _inner(shape: Shape | None, transposed: bool, of_first: bool) -> int | None:
    """Return the length of the sums of a product, from one of its operands."""
    if not shape:
        return None
    return shape[-1] if len(shape) == 1 or transposed != of_first else shape[-2]


def _blocked_product(products: Products) -> int | None:
    return _times(products.written, int(products.settings["K"]))


def _recurrent(products: Products) -> int | None:
    """Every step of every sample is multiplied with both weights, all directions and gates."""
    x, weights = products.read(0), [_elements(products.read(i)) for i in (1, 2)]
    declared = products.declared(products.values[0])
    # What was taken for the axis of samples may be that of steps.
    steps = declared[1 if products.settings.get("layout") else 0] if declared else None
    if x is None or steps is None or None in weights:
        return None
    return _times(_elements(x[:-1]), sum(w for w in weights if w is not None))


def _einsum(products: Products) -> int | None:
    """Two operands multiply once for each place of all their axes, if any axis is summed."""
    equation = products.settings["equation"].decode().replace(" ", "")
    read, _, written = equation.partition("->")
    terms = read.split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation or "->" not in equation:
        return None
    sizes: dict[str, int | None] = {}
    for index, term in enumerate(terms):
        shape = products.read(index)
        sizes.update(zip(term, shape or [None] * len(term), strict=True))
    return _elements(tuple(sizes.values())) if set(sizes) - set(written) else 0


def _elements(shape: Shape | None) -> int | None:
    """Return how many elements a shape has; None if one of its sizes is free."""
    if shape is None or None in shape:
        return None
    return math.prod(size for size in shape if size is not None)


def _times(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first * second


_CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "DeformConv")
_PRODUCTS = (
    *("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "TransposeMatMul"),
    *("MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul"),
)
_COUNTS: dict[str, Callable[[Products], int | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "ConvTranspose": _transposed_convolution,
    "MatMulNBits": _blocked_product,
    "Einsum": _einsum,
}
PRODUCTS = frozenset(_COUNTS)
# Standard operators that multiply; how often is not counted here.
_UNCOUNTED = ("Attention", "LinearAttention", "DFT", "STFT")
# Of ONNX Runtime's own operators and those of ai.onnx.ml, the ones that have no products.
_WITHOUT_PRODUCTS = frozenset(
    (
        *("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasSplitGelu", "ScaledSiLU"),
        *("BiasAdd", "BiasSoftmax", "BiasDropout", "BitmaskDropout", "BitmaskBiasDropout"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm"),
        *("EmbedLayerNormalization", "QEmbedLayerNormalization", "GroupNorm", "GroupNormalization"),
        *("MaxPool", "NhwcMaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearAveragePool", "QLinearSigmoid"),
        *("QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearWhere"),
        *("QLinearReduceMean", "QuantizeLinear", "DequantizeLinear", "GatherBlockQuantized"),
        *("RotaryEmbedding", "ReorderInput", "ReorderOutput", "Upsample", "Pad", "Range", "Trilu"),
        *("Unique", "GatherND", "ExpandDims", "GridSample", "TorchEmbedding", "Tokenizer"),
        *("RemovePadding", "RestorePadding", "CropAndResize", "MulInteger", "ReduceSumInteger"),
        *("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap", "Binarizer"),
        *("ArrayFeatureExtractor", "LabelEncoder", "OneHotEncoder", "Imputer", "FeatureVectorizer"),
        *("Scaler", "Normalizer", "CategoryMapper", "DictVectorizer", "CastMap"),
    )
)
