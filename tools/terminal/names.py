"""Names on the command line: how each kind is checked, and which there are; torch is not imported.

What knows them is imported inside the functions, so that a command pays for its own kinds alone.
"""

from collections.abc import Iterable
from pathlib import Path

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant


def names_onnx(reference: str) -> bool:
    """Say whether a subject's name is that of an ONNX file."""
    return reference.endswith(".onnx")


def check_subject(reference: str) -> None:
    """Refuse what is no reference model's name, file's function or ONNX file; no code is run.

    Raises:
        BadInputError: there is no such model or file, or the file is not in Python.
    """
    from edgedl.compress.user_code import names_user_code, user_file

    if names_user_code(reference):
        user_file(reference)
    elif names_onnx(reference):
        if not Path(reference).is_file():
            raise BadInputError(f"there is no file '{reference}'")
    elif Path(reference).is_file():
        raise BadInputError(
            f"{reference} is not a Python file: give file.py:function, a function of yours that "
            "returns a Subject or a module, or an ONNX file"
        )
    else:
        check_model(reference)


def check_teacher(reference: str) -> None:
    """Refuse what is neither a bundle's folder nor a subject.

    Raises:
        BadInputError: there is no such folder, model or file.
    """
    from edgedl.runtime.bundle.bundle import find_bundle

    if Path(reference).is_dir():
        find_bundle(Path(reference))
    else:
        check_subject(reference)


def check_recipe(reference: str) -> None:
    """Refuse what is no recipe's name, no file, and no several of them joined by "+".

    Raises:
        BadInputError: there is no such recipe.
    """
    from edgedl.compress.recipe.shipped_recipes import DEFAULT, check_recipe_name, recipe_parts

    if reference != DEFAULT:
        for part in recipe_parts(reference):
            check_recipe_name(part)


def check_runtime(name: str) -> None:
    """Refuse a runtime that there is not.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.runtime.backends.runtimes import RUNTIMES

    if name not in RUNTIMES:
        raise BadInputError(f"unknown runtime '{name}'{meant(name, RUNTIMES)}")


def check_backend(name: str) -> None:
    """Refuse a backend that there is not.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.runtime.backends.runtimes import open_backend

    open_backend(name)


def check_task(reference: str) -> None:
    """Refuse what is no file's function, no data set's or reference model's name, and no data.

    No code is run.

    Raises:
        BadInputError: there is no such file or name.
    """
    from edgedl.compress.user_code import names_user_code, user_file
    from edgedl.models.data.datasets import DATASETS
    from edgedl.runtime.task.sources.open_source import names_source

    if names_user_code(reference):
        user_file(reference)
    elif reference not in DATASETS and not names_source(reference):
        check_model(reference)


def check_model(name: str) -> None:
    """Refuse a reference model that there is not.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.models.reference.table import find_model

    find_model(name)


def check_dataset(name: str) -> None:
    """Refuse a data set that there is not.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.models.data.datasets import find_dataset

    find_dataset(name)


def check_shipped_recipe(name: str) -> None:
    """Refuse a recipe that is not in the package; the default is none and passes.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.compress.recipe.shipped_recipes import DEFAULT, shipped_text

    if name != DEFAULT:
        shipped_text(name)


def check_target(name: str) -> None:
    """Refuse a target that there is not, or a file that describes none.

    Raises:
        BadInputError: the message has the nearest name.
    """
    from edgedl.compress.targets.described import described_target

    described_target(name)


def recipes() -> list[str]:
    """Return the names of the shipped recipes, the default first."""
    from edgedl.compress.recipe.shipped_recipes import DEFAULT, shipped_recipes

    return [DEFAULT, *shipped_recipes()]


def targets() -> list[str]:
    """Return the names of every target."""
    from edgedl.compress.targets.described import target_names

    return target_names()


def models() -> Iterable[str]:
    """Return the names of the reference models."""
    from edgedl.models.reference.table import REFERENCE_MODELS

    return REFERENCE_MODELS


def datasets() -> Iterable[str]:
    """Return the names of the data sets."""
    from edgedl.models.data.datasets import DATASETS

    return DATASETS


def runtimes() -> Iterable[str]:
    """Return the names of the runtimes that files are made for."""
    from edgedl.runtime.backends.runtimes import RUNTIMES

    return RUNTIMES


def backends() -> Iterable[str]:
    """Return the names of what runs files."""
    from edgedl.runtime.backends.runtimes import BACKENDS

    return BACKENDS
