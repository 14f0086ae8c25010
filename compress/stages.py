"""Every technique there is: the name a recipe uses, and the class."""

from typing import get_args

import msgspec

from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.train_quantized import TrainQuantized

AnyStage = QuantizeStatic | RoundWeights | TrainQuantized | QuantizeDynamic


def stage_name(stage: type[AnyStage]) -> str:
    """Return the name a recipe uses for a stage.

    >>> stage_name(RoundWeights)
    'round_weights'
    """
    info = msgspec.inspect.type_info(stage)
    return str(info.tag) if isinstance(info, msgspec.inspect.StructType) else stage.__name__


STAGES: dict[str, type[AnyStage]] = {stage_name(stage): stage for stage in get_args(AnyStage)}
