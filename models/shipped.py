"""Trained weights and embedded data: they ship in a wheel of their own, edgedl-models."""

from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import MODELS, install_line

if TYPE_CHECKING:
    from importlib.abc import Traversable


def shipped(folder: Literal["weights", "embedded"]) -> "Traversable":
    """Return the folder of the reference models' weights, or of the data that ship.

    Raises:
        BackendUnavailableError: edgedl-models is not installed.
    """
    try:
        return files(f"edgedl_models.{folder}")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            "edgedl-models is missing, it holds the weights of the reference models and the "
            f"embedded data: {install_line(MODELS)}"
        ) from error
