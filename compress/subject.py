"""What is being compressed: a module and the task it serves."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.task import Task


@dataclass(frozen=True)
class Subject:
    """A trained network with its data.

    Attributes:
        name: what bundle and report call it.
        module: the network, float32; it takes and returns tensors [N, ...].
        task: data splits and score.
        licence: of the weights, for the manifest.
        data: provenance of the data, for the manifest.
    """

    name: str
    module: nn.Module
    task: Task
    licence: str = "not stated"
    data: str = "not stated"

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the first two calibration samples, one float32 tensor [2, ...] per input.

        Raises:
            BadInputError: the inputs are not float32.
        """
        batch = next(iter(self.task.batches("calibration", 2)))
        for index, x in enumerate(batch.inputs):
            if str(x.dtype) != "float32":
                raise BadInputError(
                    f"input {index} of task '{self.task.name}' is {x.dtype}, expected float32"
                )
        return tuple(torch.tensor(x) for x in batch.inputs)


def load_subject(reference: str) -> Subject:
    """Call ``function`` of ``file.py`` and return the Subject it makes.

    Args:
        reference: ``path/to/file.py:function``; the function takes no arguments.

    Raises:
        BadInputError: no such file or function, its code raises, or it returns something else.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise BadInputError(f"there is no file '{file}' (SUBJECT is a model's name or file.py:function)")
    subject = _call(_load_function(path, name), reference)
    if not isinstance(subject, Subject):
        raise BadInputError(
            f"{reference} returned {type(subject).__name__}, expected edgedl.compress.subject.Subject"
        )
    return subject


def _load_function(path: Path, name: str) -> Callable[[], object]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _user_error(path, error) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise BadInputError(f"{path} has no function '{name}'")
    return function  # type: ignore[no-any-return]


def _call(function: Callable[[], object], reference: str) -> object:
    try:
        return function()
    except EdgedlError:
        raise
    except (Exception, SystemExit) as error:
        raise _user_error(Path(reference.rpartition(":")[0]), error) from error


def _user_error(path: Path, error: BaseException) -> BadInputError:
    """Name the line of the user's own file where an exception passed."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"{path}, line {line}" if line else str(path)
    return BadInputError(f"{where}: {type(error).__name__}: {error}")
