"""A small convolutional network as a bundle, to be damaged."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.task.task import ArrayTask, Samples

SIDE, CLASSES = 12, ("cat", "dog", "bird", "fish")


def make_bundle(folder: Path) -> None:
    """Write a bundle with float and int8 files for two runtimes into a new folder."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, len(CLASSES)),
    )

    def pictures() -> Samples:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (64, SIDE, SIDE, 3)).astype(np.uint8)
        return Samples((images,), rng.integers(0, len(CLASSES), 64))

    task = ArrayTask(
        "pictures",
        {"calibration": pictures, "test": pictures},
        classes=CLASSES,
        preprocessing=ImagePreprocessing(SIDE, SIDE, "RGB", mean=(0.5,) * 3, std=(0.25,) * 3),
    )
    folder.mkdir()
    recipe = load_recipe("static_w8c_a8")
    compress(Subject("small", network.eval(), task), recipe, (ORT, TFLITE), folder)
