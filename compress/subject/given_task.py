"""A task over data as a user gives them to ``edgedl.compress_model``."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from edgedl.compress.subject.arguments import ForwardArguments
from edgedl.compress.subject.check_subject import try_module
from edgedl.compress.subject.given_batches import BatchReader, GivenBatch, KeptBatches, open_data
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.subject.scoring import Scoring, UserScore, find_scoring
from edgedl.compress.subject.untouched import evaluating
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.preprocessing import Preprocessing
from edgedl.runtime.task.checks import TOP1, Scores
from edgedl.runtime.task.kept_splits import SHARE_OF_FREE, Array, free_bytes
from edgedl.runtime.task.rebatch import rebatched
from edgedl.runtime.task.task import TRAIN, Batch

CALIBRATION, TEST = "calibration", "test"
# Samples that the module computes at once.
PIECE = 64


class GivenTask:
    """Calibration, test and training data of a user, and the score that suits them.

    Where there is no test data, every second calibration sample is one. Where labels are missing
    and a usual score reads them, they are what the float network answers.

    Attributes:
        name: of the network.
        metric: name of the score.
        classes: class names in label order; empty if labels are no classes.
        preprocessing: how files become inputs; None where inputs are arrays.
        splits: "calibration", "test", and "train" where it was given.
        notes: what was done with the data that the user may not expect.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        data: Mapping[str, object],
        score: UserScore | None = None,
        classes: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Read the first batch of each split, and run the module on it.

        Args:
            name: of the network.
            module: on the CPU.
            data: by split; None is not given. See ``open_data``.
            score: the user's own; None for the one that suits labels and outputs.
            classes: their names; numbers if none are given.
            preprocessing: how files become inputs; the data have gone through it.

        Raises:
            BadInputError: data, labels and module do not fit together.
        """
        self.name, self._module, self.preprocessing = name, module, preprocessing
        opened = _open(module, data)
        notes: list[str] = []
        # Splits that have every second sample of what was given: the first that they have.
        self._first_row: dict[str, int] = {}
        self._answers: dict[tuple[str, int], Array] = {}
        self._room = SHARE_OF_FREE * free_bytes()
        if TEST not in opened:
            opened[TEST] = opened[CALIBRATION]
            notes.append(
                "no test data: every second calibration sample is used for the score, the "
                "others for calibration"
            )
            self._first_row = {CALIBRATION: 0, TEST: 1}
        self._splits = opened
        if opened[TEST].first.labels is None and opened[CALIBRATION].first.labels is not None:
            raise BadInputError("the calibration data have labels and the test data have none")
        batch = opened[TEST].first
        try_module(module, _narrowed(batch.inputs))
        outputs = self._outputs(tuple(x[:PIECE] for x in batch.inputs))
        labels = self._test_labels(batch, score)
        self._scoring = find_scoring(outputs, labels, score)
        self._label = np.zeros((), np.int64) if labels is None else np.asarray(labels[0])
        if self._scoring.says:
            notes.append(self._scoring.says)
        if TRAIN in opened and opened[TRAIN].first.labels is None:
            notes.append(
                "the training data have no labels: training uses the float network's outputs"
            )
        self.notes = tuple(notes)
        self.metric = self._scoring.metric
        self.classes = _class_names(classes, self._scoring)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self._splits)

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order, in batches of ``batch_size`` (the last may be smaller)."""
        if split not in self._splits:
            raise BadInputError(f"task '{self.name}' has no split '{split}'")
        for batch in rebatched(self._parts(split), batch_size):
            yield _copied(batch)

    def score(self, outputs: Sequence[Array], labels: Array) -> Scores:
        """Score each sample of a batch."""
        return self._scoring.score(outputs, labels)

    def _parts(self, split: str) -> Iterator[Batch]:
        """Yield small batches with labels."""
        number = seen = 0
        for batch in self._splits[split]:
            size = len(batch.inputs[0])
            rows: slice = slice(0, size)
            if split in self._first_row:
                rows = slice((self._first_row[split] - seen) % 2, size, 2)
            seen += size
            inputs = tuple(x[rows] for x in batch.inputs)
            given = None if self._scoring.of_float_network else batch.labels
            for start in range(0, len(inputs[0]), PIECE):
                piece = tuple(x[start : start + PIECE] for x in inputs)
                if given is None:
                    labels = self._labels((split, number), piece)
                else:
                    labels = given[rows][start : start + PIECE]
                number += 1
                yield Batch(piece, labels)

    def _labels(self, place: tuple[str, int], inputs: tuple[Array, ...]) -> Array:
        """Return the labels of inputs that came without; they are kept as far as there is room.

        Args:
            place: split and number of the piece.
            inputs: [B, ...] each.
        """
        if self._scoring.labels_of is None:
            # The user's score reads test labels alone; those of other splits have their shape.
            return np.zeros((len(inputs[0]), *self._label.shape), self._label.dtype)
        if place in self._answers:
            return self._answers[place]
        found = self._scoring.labels_of(self._outputs(inputs))
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._answers[place] = found
        return found

    def _outputs(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the float network's outputs, float32 [B, ...] each."""
        with evaluating(self._module), torch.no_grad():
            found = as_tuple(self._module(*(torch.tensor(x) for x in _narrowed(inputs))))
        return tuple(y.float().numpy() for y in found)

    def _test_labels(self, batch: GivenBatch, score: UserScore | None) -> Array | None:
        """Return labels that tell which score suits: of all batches where numbers may be meant."""
        if batch.labels is None or score is not None or batch.labels.dtype.kind != "f":
            return batch.labels
        return np.concatenate([b.labels for b in self._splits[TEST] if b.labels is not None])


def _open(module: nn.Module, data: Mapping[str, object]) -> dict[str, KeptBatches]:
    arguments = ForwardArguments.of(module)
    opened: dict[str, KeptBatches] = {}
    same: dict[int, KeptBatches] = {}
    for split, given in data.items():
        if given is None and split != CALIBRATION:
            continue
        if id(given) not in same:
            same[id(given)] = open_data(split, given, BatchReader(split, arguments))
        opened[split] = same[id(given)]
        opened[split].first  # noqa: B018  # it refuses what is no batch
    return opened


def _narrowed(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return inputs whose float64 is float32."""
    return tuple(x.astype(np.float32) if x.dtype == np.float64 else x for x in inputs)


def _class_names(given: Sequence[str], scoring: Scoring) -> tuple[str, ...]:
    names = tuple(given) or tuple(map(str, range(scoring.classes)))
    if given and scoring.metric != TOP1:
        raise BadInputError(f"classes are given, and the score is {scoring.metric}: leave them out")
    if len(names) != scoring.classes:
        raise BadInputError(f"{len(names)} classes are named, the network has {scoring.classes}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInputError(f"the class '{twice[0]}' is named twice")
    return names


def _copied(batch: Batch) -> Batch:
    """Return a batch whose arrays are the caller's own."""
    return Batch(tuple(np.array(x) for x in batch.inputs), np.array(batch.labels))
