"""Settings that Python code gives are checked as those of a recipe file are."""

from typing import Any

import msgspec
import pytest

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.stage import Stage
from edgedl.runtime.errors import BadInputError


@pytest.mark.parametrize(
    ("stage", "settings", "said"),
    [
        (QuantizeStatic, {"weight_bits": 0}, "quantize_static, weight_bits = 0: .*>= 2"),
        (QuantizeStatic, {"weight_bits": 33}, "weight_bits = 33: .*<= 8"),
        (QuantizeStatic, {"observer": "foo"}, "observer = 'foo'"),
        (QuantizeStatic, {"percentile": 10.0}, "percentile = 10.0: .*> 50"),
        (QuantizeStatic, {"scope": "x"}, "scope = 'x'"),
        (QuantizeStatic, {"activation_bits": 4}, "activation_bits = 4"),
        (QuantizeStatic, {"batch_size": 0}, "batch_size = 0"),
        (MixPrecision, {"max_layers": 99}, "mix_precision, max_layers = 99"),
        (QuantizeWeights, {"rounding": "up"}, "quantize_weights, rounding = 'up'"),
        (PruneChannels, {"ratio": "half"}, "prune_channels, ratio = 'half'"),
        (FineTune, {"epochs": 1.5}, "fine_tune, epochs = 1.5"),
    ],
)
def test_what_is_no_such_setting_is_named(
    stage: type[Stage], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInputError, match=said):
        stage(**settings)


def test_settings_within_their_limits_are_taken() -> None:
    stage = QuantizeStatic(samples=8, keep_float=("stem",), weight_bits=7)
    assert msgspec.structs.replace(stage, samples=9).samples == 9
    assert FineTune(epochs=1, learning_rate=1).learning_rate == 1
