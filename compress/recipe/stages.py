"""Every technique there is: the name a recipe uses, and the class."""

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.reconstruct_blocks import ReconstructBlocks
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.corrections.scale_weights import ScaleWeights
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.recurrent import QuantizeRecurrent
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.search.protect_parts import ProtectParts
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.stage import Stage, stage_name

# In the order in which a recipe would use them.
_LISTED: tuple[type[Stage], ...] = (
    PruneChannels,
    PruneBlocks,
    Factorize,
    Sparsify,
    FineTune,
    ClusterWeights,
    Equalize,
    Smooth,
    ScaleWeights,
    QuantizeStatic,
    QuantizeFp8,
    RoundWeights,
    LearnRounding,
    ReconstructBlocks,
    CorrectBias,
    MatchStatistics,
    TrainQuantized,
    MixPrecision,
    ProtectParts,
    QuantizeRecurrent,
    QuantizeDynamic,
    QuantizeWeights,
)

# By the name that a recipe uses.
STAGES: dict[str, type[Stage]] = {stage_name(stage): stage for stage in _LISTED}
