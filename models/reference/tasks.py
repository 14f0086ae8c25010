"""The tasks of the known data sets: calibrate on training data, score on the whole test split."""

from collections.abc import Callable

import numpy as np

from edgedl.models.data.dataset import CorpusDataset, ImageDataset, SequenceDataset, TextDataset
from edgedl.models.data.datasets import (
    find_dataset,
    load_corpus,
    load_recordings,
    load_split,
    load_texts,
)
from edgedl.models.data.texts import word_tokenizer
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.preprocess.text import TextPreprocessing
from edgedl.runtime.task.scores import BITS, bits_per_character
from edgedl.runtime.task.task import ArrayTask, Samples


def make_task(dataset_name: str) -> ArrayTask:
    """Return the classification task of a data set.

    Raises:
        BadInputError: there is no such data set.
    """
    dataset = find_dataset(dataset_name)
    if isinstance(dataset, SequenceDataset):
        return _recordings_task(dataset)
    if isinstance(dataset, ImageDataset):
        return _picture_task(dataset)
    if isinstance(dataset, CorpusDataset):
        return _corpus_task(dataset)
    if isinstance(dataset, TextDataset):
        return _text_task(dataset)
    raise TypeError(f"{type(dataset).__name__} has no task")


def _picture_task(dataset: ImageDataset) -> ArrayTask:
    height, width, channels = dataset.image_shape

    def loader(split: str) -> Callable[[], Samples]:
        def load_samples() -> Samples:
            part = load_split(dataset.name, split)
            return Samples((part.images,), part.labels)

        return load_samples

    return ArrayTask(
        name=dataset.name,
        splits={
            "calibration": loader("train_10k"),
            "test": loader("test"),
            "train": loader("train"),
        },
        classes=dataset.classes,
        metric=dataset.metric,
        preprocessing=ImagePreprocessing(
            height, width, "L" if channels == 1 else "RGB", mean=dataset.mean, std=dataset.std
        ),
    )


def _recordings_task(dataset: SequenceDataset) -> ArrayTask:
    """Every window is one sample; calibration windows are spread over all training recordings."""

    def loader(split: str) -> Callable[[], Samples]:
        def load_samples() -> Samples:
            inputs, labels = load_recordings(dataset.name, split).windows(dataset.cut)
            if split == "test":
                return Samples((inputs,), labels)
            spread = np.random.default_rng(0).permutation(len(labels))
            return Samples((inputs[spread],), labels[spread])

        return load_samples

    return ArrayTask(
        name=dataset.name,
        splits={
            "calibration": loader("train"),
            "test": loader("test"),
            "train": loader("train"),
        },
        classes=dataset.classes,
        preprocessing=dataset.cut,
    )


# Windows of running text that are shown: every prediction takes a step of its own.
CALIBRATION_WINDOWS, TEST_WINDOWS = 64, 128


def _corpus_task(dataset: CorpusDataset) -> ArrayTask:
    """Every window is one sample; those that are shown are spread evenly over all texts."""

    def loader(split: str, most: int) -> Callable[[], Samples]:
        def load_samples() -> Samples:
            inputs, labels = load_corpus(dataset.name, split).windows(
                dataset.context, dataset.scored
            )
            shown = np.linspace(0, len(labels) - 1, min(most, len(labels))).astype(np.int64)
            return Samples((inputs[shown],), labels[shown])

        return load_samples

    return ArrayTask(
        name=dataset.name,
        splits={
            "calibration": loader("train", CALIBRATION_WINDOWS),
            "test": loader("test", TEST_WINDOWS),
        },
        metric=BITS,
        score_samples=bits_per_character,
        preprocessing=CharacterPreprocessing(dataset.alphabet, dataset.context),
    )


def preprocessing_of(dataset: TextDataset) -> TextPreprocessing:
    """Return what makes tokens and their mask of a text."""
    return TextPreprocessing(word_tokenizer(dataset.words), dataset.length, inputs=("ids", "mask"))


def _text_task(dataset: TextDataset) -> ArrayTask:
    """Every text is one sample; those of the calibration are spread over the training split."""
    preprocessing = preprocessing_of(dataset)

    def loader(split: str) -> Callable[[], Samples]:
        def load_samples() -> Samples:
            part = load_texts(dataset.name, split)
            inputs, labels = preprocessing(list(part.texts)), part.labels
            if split == "test":
                return Samples(inputs, labels)
            spread = np.random.default_rng(0).permutation(len(labels))
            return Samples(tuple(x[spread] for x in inputs), labels[spread])

        return load_samples

    return ArrayTask(
        name=dataset.name,
        splits={
            "calibration": loader("train"),
            "test": loader("test"),
            "train": loader("train"),
        },
        classes=dataset.classes,
        preprocessing=preprocessing,
    )
