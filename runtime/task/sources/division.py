"""Who is in which split: the same on every machine, and no twin of a sample in another split."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError

Rows = npt.NDArray[np.int64]

# Shares of what is divided; the rest trains.
TEST, SELECTION = 0.2, 0.1
# Most samples that calibrate.
CALIBRATION = 512
# A split of fewer samples says little; one is not made.
FEWEST = 2


def divide(groups: Sequence[Hashable], labels: Sequence[Hashable] | None = None) -> dict[str, Rows]:
    """Divide samples into "train", "calibration", "selection" and "test".

    Every group goes into one split as a whole. Of each class a fifth is for the test and a tenth
    to choose by, as nearly as groups allow. Who it is is a matter of the groups' names alone,
    hashed: samples that are added later leave the others where they were, as far as shares allow.
    "calibration" is the first 512 of "train", which stay in it.

    Args:
        groups: of each sample: samples of one group are alike.
        labels: classes of the samples; None where they have none.

    Returns:
        Numbers of samples, in an order that has nothing to do with that of the files.

    Raises:
        BadInputError: there are too few samples, or groups, for a test split.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(_hash(group), []).append(row)
    classes = [""] * len(groups) if labels is None else labels
    sizes = Counter(classes)
    taken: Counter[tuple[str, Hashable]] = Counter()
    found: dict[str, list[int]] = {"test": [], "selection": [], "train": []}
    for _, rows in sorted(members.items()):
        of = classes[rows[0]]
        split = "train"
        for wanted, share in (("test", TEST), ("selection", SELECTION)):
            if taken[wanted, of] + len(rows) / 2 <= share * sizes[of]:
                split = wanted
                break
        taken[split, of] += len(rows)
        found[split] += rows
    if len(found["test"]) < FEWEST and len(members) > 1:
        # Groups are larger than its share: the smallest is the test.
        _, rows = min(members.items(), key=lambda item: (len(item[1]), item[0]))
        found = {split: [r for r in other if r not in set(rows)] for split, other in found.items()}
        found["test"] += rows
    if len(found["test"]) < FEWEST or len(found["train"]) < FEWEST:
        raise BadInputError(
            f"{len(groups)} samples, {len(members)} of which differ, are too few: at least "
            f"{round(FEWEST / TEST)} are needed to calibrate and to score"
        )
    if len(found["selection"]) < FEWEST:
        found["train"] += found.pop("selection")
    found["calibration"] = found["train"][:CALIBRATION]
    return {split: np.asarray(rows, np.int64) for split, rows in found.items()}


def _hash(group: Hashable) -> str:
    return hashlib.sha256(repr(group).encode()).hexdigest()
