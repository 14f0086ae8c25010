"""Files that are made where static int8 destroys a part of an output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.task.task import ArrayTask, Samples

pytestmark = pytest.mark.slow

LARGE = 1000.0
# More than are kept in float by themselves.
DEPTH = 6


class TwoScales(nn.Module):
    """Layers that carry large and small values side by side: no grid of one step holds both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(DEPTH))
        for layer in self.layers:
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.zero_()
                for half in (slice(0, 8), slice(8, 16)):
                    layer.weight[half, half] = torch.linalg.qr(torch.randn(8, 8))[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = nn.functional.gelu(layer(x)) + x
        return x


def subject() -> Subject:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 16)).astype(np.float32)
    x[:, :8] *= LARGE
    samples = Samples((x,), np.zeros(64))
    splits = {"calibration": lambda: samples, "test": lambda: samples}
    task = ArrayTask(
        "two-scales", splits, "none", lambda outputs, labels: np.zeros(len(outputs[0]))
    )
    return Subject("two-scales", TwoScales().eval(), task)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    return compress(subject(), None, (ORT, TFLITE), tmp_path_factory.mktemp("bundle"))


def test_int8_weights_are_made_where_int8_activations_destroy_a_part(
    made: CompressedModel,
) -> None:
    artifacts = {a.name: a for a in made.bundle.manifest.artifacts}
    for target in (ORT, TFLITE):
        assert artifacts[f"{target.name}-int8"].findings
        assert artifacts[f"{target.name}-int8_weights"].findings == ()
    assert any("int8_weights was tried, too" in warning for warning in made.warnings)


def test_the_golden_outputs_are_those_of_the_files_that_ship(made: CompressedModel) -> None:
    with np.load(made.bundle.folder / "golden.npz") as golden:
        named = {key.split("/")[0] for key in golden} - {"input"}
    assert named == {a.name for a in made.bundle.manifest.artifacts}


def test_a_recipe_of_the_users_is_all_that_is_done(tmp_path: Path) -> None:
    made = compress(subject(), load_recipe("static_w8c_a8"), (ORT,), tmp_path)
    precisions = {a.precision for a in made.bundle.manifest.artifacts}
    assert precisions == {"float32", "float16", "int8"}
