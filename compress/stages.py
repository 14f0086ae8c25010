"""Every technique there is: the name a recipe uses, and the class."""

from edgedl.compress.quantize.static import QuantizeStatic

STAGES = {"quantize_static": QuantizeStatic}
