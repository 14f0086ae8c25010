"""Pictures in folders, with a folder for each class or without classes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import SUFFIXES, ImagePreprocessing
from edgedl.runtime.task.kept_splits import SHARE_OF_FREE, Array, free_bytes
from edgedl.runtime.task.sources.division import CALIBRATION, divide
from edgedl.runtime.task.sources.reference import DataReference
from edgedl.runtime.task.sources.source import TOGETHER, Source, SourceBatch, Split
from edgedl.runtime.task.sources.twins import find_twins
from edgedl.runtime.wording import counted

# Folders of splits, as data sets name them.
TRAIN = ("train", "training")
SELECTION = ("val", "valid", "validation")
TEST = ("test", "testing")
OPTIONS = (
    "size", "height", "width", "mode", "mean", "std", "resize", "shorter_side", "interpolation",
)  # fmt: skip


def class_folders(reference: DataReference) -> Source:
    """Read a folder that has a folder of pictures for each class.

    Where its folders are called train, val and test, they are the splits; of those that are
    missing, and where none is, the pictures are divided.

    Raises:
        BadInputError: no such folder, one class alone, or no pictures.
    """
    root, preprocessing = _folder(reference), preprocessing_of(reference)
    parts = _parts(root)
    classes = sorted({p.name for part in parts.values() for p in _folders(part)})
    if len(classes) < 2:
        what = f"one class alone, '{classes[0]}'" if classes else "no folder of a class"
        raise BadInputError(
            f"{root} has {what}: it must have a folder of pictures for each class; for pictures "
            f"without classes write images:{root}"
        )
    files = {
        split: [(p, number) for number, name in enumerate(classes) for p in _pictures(part / name)]
        for split, part in parts.items()
    }
    empty = Counter(number for found in files.values() for _, number in found)
    for number, name in enumerate(classes):
        if not empty[number]:
            raise BadInputError(f"the class '{name}' of {root} has no pictures ({_suffixes()})")
    splits, notes = _divided(files, preprocessing, labelled=True)
    return Source(root.name, splits, tuple(classes), preprocessing, notes)


def pictures(reference: DataReference) -> Source:
    """Read all pictures below a folder; they have no labels.

    Raises:
        BadInputError: no such folder, or no pictures.
    """
    root, preprocessing = _folder(reference), preprocessing_of(reference)
    found = [(path, 0) for path in sorted(root.rglob("*")) if _is_picture(path)]
    if not found:
        raise BadInputError(f"{root} holds no pictures ({_suffixes()})")
    splits, notes = _divided({"": found}, preprocessing, labelled=False)
    return Source(root.name, splits, (), preprocessing, notes)


def preprocessing_of(reference: DataReference) -> ImagePreprocessing:
    """Return how pictures become inputs, as the options say it.

    Raises:
        BadInputError: the size is missing, or an option means nothing.
    """
    side = reference.number("size", 0, 0)
    height, width = reference.number("height", side, 0), reference.number("width", side, 0)
    if not height or not width:
        raise BadInputError(
            f"the size of the network's pictures is missing: {reference.kind}:{reference.path}"
            "?size=224, or ?height=...&width=..."
        )
    return ImagePreprocessing(
        height,
        width,
        reference.choice("mode", "RGB", ("RGB", "BGR", "L")),  # type: ignore[arg-type]
        mean=reference.numbers("mean"),
        std=reference.numbers("std"),
        resize=reference.choice("resize", "stretch", ("stretch", "crop", "letterbox")),  # type: ignore[arg-type]
        shorter_side=reference.number("shorter_side", 0, 0),
        interpolation=reference.choice(  # type: ignore[arg-type]
            "interpolation", "bilinear", ("nearest", "bilinear", "bicubic", "lanczos")
        ),
    )


class PictureSplit:
    """Picture files, read when they are needed and kept as bytes if they fit into the memory."""

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        preprocessing: ImagePreprocessing,
        labelled: bool,
    ) -> None:
        """Take files with the numbers of their classes."""
        self._files, self._preprocessing, self._labelled = list(files), preprocessing, labelled
        size = preprocessing.height * preprocessing.width * preprocessing.channels
        self._keeps = size * len(files) <= SHARE_OF_FREE * free_bytes()
        self._kept: dict[int, Array] = {}

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._files) // TOGETHER)

    def __iter__(self) -> Iterator[SourceBatch]:
        """Yield float32 pictures [B, C, H, W] and labels [B]."""
        for start in range(0, len(self._files), TOGETHER):
            part = self._files[start : start + TOGETHER]
            pixels = self._kept.get(start)
            if pixels is None:
                pixels = np.concatenate([self._preprocessing.read(path) for path, _ in part])
                if self._keeps:
                    self._kept[start] = pixels
            labels = np.asarray([number for _, number in part], np.int64)
            inputs = (self._preprocessing.from_raw(pixels),)
            yield SourceBatch(inputs, labels if self._labelled else None)


def _divided(
    files: dict[str, list[tuple[Path, int]]],
    preprocessing: ImagePreprocessing,
    labelled: bool,
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return splits of files, and what was assumed."""
    notes = []
    if not preprocessing.mean:
        notes.append("pictures are scaled to 0..1 and not normalised: no ?mean= and ?std= is given")
    if set(files) == {""}:
        every = files[""]
        twins = find_twins([path for path, _ in every])
        rows = divide(twins, [number for _, number in every] if labelled else None)
        files = {split: [every[i] for i in chosen] for split, chosen in rows.items()}
        notes += _about_twins([path for path, _ in every], twins)
        sizes = ", ".join(f"{len(files[s])} {s}" for s in files if s != "calibration")
        calibrate = len(files["calibration"])
        notes.append(f"the pictures were divided into {sizes}, of which {calibrate} calibrate")
    else:
        files = {split: _spread(found) for split, found in files.items()}
        learned = files.get("train")
        if learned is None:
            raise BadInputError("there is a folder of test pictures and none of training pictures")
        files["calibration"] = learned[:CALIBRATION]
        if "test" not in files:
            files["test"] = files.pop("selection")
            notes.append("there is no folder of test pictures: those for validation are scored")
    return {s: PictureSplit(found, preprocessing, labelled) for s, found in files.items()}, tuple(
        notes
    )


def _spread(files: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Return files in an order that mixes the classes, the same on every machine."""
    return sorted(files, key=lambda f: hashlib.sha256(f"{f[1]}/{f[0].name}".encode()).hexdigest())


def _about_twins(paths: Sequence[Path], twins: Sequence[int]) -> list[str]:
    counts = Counter(twins)
    name, most = counts.most_common(1)[0]
    if most == 1:
        return []
    same = [path for path, twin in zip(paths, twins, strict=True) if twin == name]
    groups = sum(count > 1 for count in counts.values())
    return [
        f"{counted(groups, 'group')} of pictures that look alike are in one split each; the "
        f"largest has {most}, such as {same[0].name} and {same[1].name}"
    ]


def _parts(root: Path) -> dict[str, Path]:
    """Return the folder of each split, or the root under an empty name."""
    found = {}
    for split, names in (("train", TRAIN), ("selection", SELECTION), ("test", TEST)):
        for folder in _folders(root):
            if folder.name.lower() in names and _folders(folder):
                found[split] = folder
    if set(found) == {"train"}:
        return {"": found["train"]}
    return found or {"": root}


def _folder(reference: DataReference) -> Path:
    if not reference.path.is_dir():
        raise BadInputError(f"there is no folder '{reference.path}'")
    return reference.path


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if _is_picture(p)) if folder.is_dir() else []


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _suffixes() -> str:
    return ", ".join(SUFFIXES)
