"""The user's own code, named as ``file.py:name``."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgedl.compress.errors import located
from edgedl.runtime.errors import BadInputError, EdgedlError


def names_user_code(reference: str) -> bool:
    """Say whether a reference has the form ``file.py:name``.

    >>> names_user_code("mine.py:Halve"), names_user_code("halve")
    (True, False)
    """
    return ".py:" in reference


def call_user_function(reference: str) -> object:
    """Import ``file.py``, call ``function`` without arguments, and return what it returns.

    Args:
        reference: ``path/to/file.py:function``.

    Raises:
        BadInputError: no such file or function, or its code raises; the message names the line.
    """
    file, name = _parts(reference)
    path = Path(file)
    if not path.is_file():
        raise BadInputError(f"there is no file '{file}'")
    function: Callable[[], object] = _load(path, name, "function")
    try:
        return function()
    except EdgedlError:
        raise
    except (Exception, SystemExit) as error:
        raise located(path, error) from error


def load_user_class(reference: str, folder: Path) -> type:
    """Import ``file.py`` and return the class of that name.

    Args:
        reference: ``path/to/file.py:Class``.
        folder: that the path begins in; where there is no such file, it begins in the working
            directory.

    Raises:
        BadInputError: no such file or class, or its code raises; the message names the line.
    """
    file, name = _parts(reference)
    path = next((p for p in (folder / file, Path(file)) if p.is_file()), None)
    if path is None:
        places = dict.fromkeys((str(folder.resolve()), str(Path.cwd())))
        raise BadInputError(f"there is no file '{file}' in {' or in '.join(places)}")
    found = _load(path, name, "class")
    if not isinstance(found, type):
        raise BadInputError(f"{path} has no class '{name}': it is {type(found).__name__}")
    return found


def _parts(reference: str) -> tuple[str, str]:
    file, _, name = reference.rpartition(":")
    return file, name


def _load(path: Path, name: str, kind: str) -> Any:
    """Return what a file calls by a name; ``kind`` is what that should be, for errors."""
    called = path.stem if _is_free(path.stem, path) else f"{path.stem} of {path.resolve().parent}"
    spec = importlib.util.spec_from_file_location(called, path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    # The user's file may import its neighbours.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except EdgedlError:
        raise
    except (Exception, SystemExit) as error:
        raise located(path, error) from error
    found: object = getattr(module, name, None)
    if not callable(found):
        raise BadInputError(f"{path} has no {kind} '{name}'")
    return found


def _is_free(name: str, path: Path) -> bool:
    """Say whether no module but that of a file has a name."""
    known = sys.modules.get(name)
    return known is None or Path(getattr(known, "__file__", None) or "").resolve() == path.resolve()
