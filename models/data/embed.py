"""Rebuild the embedded part of Fashion-MNIST from the fetched full set.

Run as ``python -m edgedl.models.data.embed`` after ``edgedl data fetch fashion_mnist``.
"""

from pathlib import Path

from edgedl.models.data.datasets import load_split
from edgedl.models.data.images import LabelledImages, write_splits

EMBEDDED_TRAINING_SAMPLES = 10_000


def embed(target: Path) -> None:
    """Write the test split and the first 10,000 training samples to ``target``."""
    train = load_split("fashion_mnist", "train")
    part = LabelledImages(
        train.images[:EMBEDDED_TRAINING_SAMPLES], train.labels[:EMBEDDED_TRAINING_SAMPLES]
    )
    write_splits(target, {"train_10k": part, "test": load_split("fashion_mnist", "test")})


if __name__ == "__main__":
    embed(Path(__file__).parent / "embedded" / "fashion_mnist.npz")
