"""The user's own code, named as ``file.py:name``."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from edgedl.compress.errors import located
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.wording import meant, nearest


def names_user_code(reference: str) -> bool:
    """Say whether a reference has the form ``file.py:name``, or is a file's name alone.

    >>> names_user_code("mine.py:Halve"), names_user_code("mine.py"), names_user_code("halve")
    (True, True, False)
    """
    return ".py:" in reference or reference.endswith(".py")


def user_file(reference: str) -> Path:
    """Return the file of ``file.py:name``; nothing of it is run.

    Raises:
        BadInputError: there is no such file; the message has the nearest name beside it.
    """
    file, _ = _parts(reference)
    path = Path(file)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.py")]
        raise BadInputError(f"there is no file '{file}'{nearest(file, beside)}")
    return path


def call_user_function(reference: str, usual: tuple[str, ...] = ("subject",)) -> object:
    """Import ``file.py``, call ``function`` without arguments, and return what it returns.

    Args:
        reference: ``path/to/file.py:function``, or the file alone.
        usual: names that a file alone stands for; the first that it has is called.

    Raises:
        BadInputError: no such file or function, or its code raises; the message names the line.
    """
    path, name = user_file(reference), _parts(reference)[1]
    module = _load(path)
    found = [n for n in ((name,) if name else usual) if callable(getattr(module, n, None))]
    if not found:
        raise BadInputError(_lacks(path, module, name or " or ".join(usual), "function"))
    function: Callable[[], object] = getattr(module, found[0])
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
    module = _load(path)
    found: object = getattr(module, name, None)
    if found is None:
        raise BadInputError(_lacks(path, module, name, "class"))
    if not isinstance(found, type):
        raise BadInputError(f"{path} has no class '{name}': it is {type(found).__name__}")
    return found


def _parts(reference: str) -> tuple[str, str]:
    """Return file and name; a file alone has the name ""."""
    if reference.endswith(".py"):
        return reference, ""
    file, _, name = reference.rpartition(":")
    return file, name


def _lacks(path: Path, module: ModuleType, name: str, kind: str) -> str:
    """Say that a file has no function or class of a name, and which of its own it has."""
    is_kind = inspect.isclass if kind == "class" else inspect.isfunction
    own = [n for n, x in vars(module).items() if is_kind(x) and x.__module__ == module.__name__]
    return (
        f"{path} has no {kind} '{name}'{meant(name, own)}"
        if own
        else (f"{path} has no {kind} '{name}', nor any other")
    )


def _load(path: Path) -> ModuleType:
    """Return a file as a module."""
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
    return module


def _is_free(name: str, path: Path) -> bool:
    """Say whether no module but that of a file has a name."""
    known = sys.modules.get(name)
    return known is None or Path(getattr(known, "__file__", None) or "").resolve() == path.resolve()
