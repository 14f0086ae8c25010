"""Every technique there is: the name a recipe uses, and the class."""

from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic

STAGES: dict[str, type[QuantizeStatic] | type[RoundWeights] | type[QuantizeDynamic]] = {
    "quantize_static": QuantizeStatic,
    "round_weights": RoundWeights,
    "quantize_dynamic": QuantizeDynamic,
}
