"""Every technique there is: the name a recipe uses, and the class."""

from typing import get_args

import msgspec

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.sparsify.sparsify import Sparsify

# In the order in which a recipe would use them.
AnyStage = (
    PruneChannels
    | PruneBlocks
    | Factorize
    | Sparsify
    | FineTune
    | ClusterWeights
    | Equalize
    | Smooth
    | QuantizeStatic
    | QuantizeFp8
    | RoundWeights
    | LearnRounding
    | CorrectBias
    | MatchStatistics
    | TrainQuantized
    | MixPrecision
    | QuantizeDynamic
    | QuantizeWeights
)


def stage_name(stage: type[AnyStage]) -> str:
    """Return the name a recipe uses for a stage.

    >>> stage_name(RoundWeights)
    'round_weights'
    """
    info = msgspec.inspect.type_info(stage)
    return str(info.tag) if isinstance(info, msgspec.inspect.StructType) else stage.__name__


def is_shipped(stage: object) -> bool:
    """Say whether a stage is one of edgedl's own, whose code has a digest; a user's has none."""
    return type(stage) in get_args(AnyStage)


STAGES: dict[str, type[AnyStage]] = {stage_name(stage): stage for stage in get_args(AnyStage)}
