"""Call a function that the user names as ``file.py:function``."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from edgedl.runtime.errors import BadInputError, EdgedlError


def call_user_function(reference: str) -> object:
    """Import ``file.py``, call ``function`` without arguments, and return what it returns.

    Args:
        reference: ``path/to/file.py:function``.

    Raises:
        BadInputError: no such file or function, or its code raises; the message names the line.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise BadInputError(f"there is no file '{file}'")
    function = _load(path, name)
    try:
        return function()
    except EdgedlError:
        raise
    except (Exception, SystemExit) as error:
        raise _locate(path, error) from error


def _load(path: Path, name: str) -> Callable[[], object]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    # The user's file may import its neighbours.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _locate(path, error) from error
    function: object = getattr(module, name, None)
    if not callable(function):
        raise BadInputError(f"{path} has no function '{name}'")
    return function


def _locate(path: Path, error: BaseException) -> BadInputError:
    """Name the line of the user's own file where an exception passed."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"{path}, line {line}" if line else str(path)
    return BadInputError(f"{where}: {type(error).__name__}: {error}")
