"""Data by name: the kinds there are."""

from collections.abc import Callable

from edgedl.runtime.task.sources import arrays, pictures, tables
from edgedl.runtime.task.sources.reference import DataReference
from edgedl.runtime.task.sources.source import Source

KINDS: dict[str, tuple[Callable[[DataReference], Source], tuple[str, ...]]] = {
    "imagefolder": (pictures.class_folders, pictures.OPTIONS),
    "images": (pictures.pictures, pictures.OPTIONS),
    "csv": (tables.table, tables.OPTIONS),
    "npz": (arrays.arrays, arrays.OPTIONS),
}


def open_source(text: str) -> Source:
    """Return the data that a name stands for.

    Args:
        text: ``imagefolder:DIR?size=N`` (a folder for each class), ``images:DIR?size=N`` (no
            classes), ``csv:FILE?target=COLUMN``, ``npz:FILE``.

    Raises:
        BadInputError: there is no such data, or it cannot be used; the message says why.
        BackendUnavailableError: a library that reads it is not installed.
    """
    reference = DataReference.of(text, {kind: options for kind, (_, options) in KINDS.items()})
    read, _ = KINDS[reference.kind]
    return read(reference)


def names_source(text: str) -> bool:
    """Say whether a text names data of a kind, rather than a file of the user's code."""
    return text.partition(":")[0] in KINDS
