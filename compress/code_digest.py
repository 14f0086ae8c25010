"""What code does, as a digest: what was computed or timed by other code is not used again.

A digest is of the syntax trees, without docstrings, of a module and of all that it imports, inside
functions too. What cannot be followed there makes the whole project count.
"""

import ast
import hashlib
import importlib.util
import inspect
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

# Functions that import what they are given the name of.
_IMPORTING = ("import_module", "__import__", "spec_from_file_location")
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


class _Unfollowed(Exception):  # noqa: N818
    """Code imports by a name that is not known before it runs."""


@dataclass(frozen=True)
class _Module:
    """A file of code: a digest of what it does, what it imports, and whose data files it reads.

    Attributes:
        digest: of its syntax tree without docstrings.
        names: modules, or what stands in one; one that ends in "*" is every module whose name
            begins so. None where code imports by a name that is not known before it runs.
        data: packages that it reads files of.
    """

    digest: str
    names: frozenset[str] | None
    data: frozenset[str]

    @property
    def imports(self) -> frozenset[str]:
        """Return the names.

        Raises:
            _Unfollowed: they are not known.
        """
        if self.names is None:
            raise _Unfollowed
        return self.names


@dataclass(frozen=True)
class Project:
    """Code that is followed.

    Attributes:
        folders: package -> its folder; what it holds below is part of it.
    """

    folders: Mapping[str, Path]
    _read: dict[Path, _Module] = field(default_factory=dict)

    def digest(self, *modules: str) -> str:
        """Return a digest of modules, of all that they import, and of the data that these read."""
        try:
            return self._of(self._closure(modules))
        except _Unfollowed:
            return self._of({*self._below("")}, every_data=True)

    def owns(self, module: str) -> bool:
        """Say whether a module is part of the project."""
        return self._file(module) is not None

    def _of(self, modules: set[str], every_data: bool = False) -> str:
        lines = []
        for name in sorted(modules):
            path = self._file(name)
            if path is None:
                continue
            module = self._module(path)
            lines.append(f"{name} {module.digest}")
            packages = {name} if every_data and path.name == "__init__.py" else module.data
            lines += [f"{p} {_bytes_digest(p)}" for x in sorted(packages) for p in self._data(x)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _closure(self, modules: tuple[str, ...]) -> set[str]:
        found: set[str] = set()
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            # Importing a module runs its packages, and a name may stand in one.
            waiting += [name.rpartition(".")[0]] if "." in name else []
            if name.endswith("*"):
                waiting += self._below(name[:-1])
            found.add(name)
            path = self._file(name)
            if path is not None:
                waiting += self._module(path).imports
        return found

    def _below(self, prefix: str) -> Iterator[str]:
        """Yield the modules whose names begin with a prefix."""
        for package, folder in self.folders.items():
            for path in folder.rglob("*.py"):
                steps = path.relative_to(folder).with_suffix("").parts
                steps = steps[:-1] if steps[-1] == "__init__" else steps
                name = ".".join((package, *steps))
                if name.startswith(prefix):
                    yield name

    def _file(self, module: str) -> Path | None:
        """Return the file of a module; None if the project has no such module."""
        package = max((p for p in self.folders if f"{module}.".startswith(f"{p}.")), default=None)
        if package is None:
            return None
        path = self.folders[package].joinpath(*module[len(package) :].split("."))
        whole = path / "__init__.py"
        single = path.with_name(f"{path.name}.py")
        return next((p for p in (whole, single) if p.is_file()), None)

    def _module(self, path: Path) -> _Module:
        if path not in self._read:
            self._read[path] = _read_module(path.read_bytes())
        return self._read[path]

    def _data(self, package: str) -> list[Path]:
        """Return the YAML files of a package."""
        path = self._file(package)
        return [] if path is None else sorted(path.parent.glob("*.yaml"))


@cache
def edgedl() -> Project:
    """Return edgedl's own code, but for its tools, which nothing that is kept depends on."""
    found = {
        "edgedl.compress": files("edgedl.compress"),
        "edgedl.models": files("edgedl.models"),
        "edgedl.runtime": files("edgedl.runtime"),
    }
    return Project({name: Path(str(folder)) for name, folder in found.items()})


def code_digest(kind: type) -> str | None:
    """Return a digest of what a class does: the closure of its module.

    A user's file counts by its bytes, and so do those beside it that it imports; modules of edgedl
    that they import count by what they do.

    Returns:
        None where it cannot be told: the class was typed into a session or made inside a function,
        or a file of the user's imports by a name that is not constant.
    """
    project = edgedl()
    if project.owns(kind.__module__):
        return project.digest(kind.__module__)
    try:
        file = inspect.getfile(kind)
        if "<locals>" in kind.__qualname__:
            return None
        lines, imported = _user_files(Path(file))
    except (OSError, TypeError, SyntaxError, _Unfollowed):
        return None
    return hashlib.sha256("\n".join([*lines, project.digest(*imported)]).encode()).hexdigest()


def _user_files(first: Path) -> tuple[list[str], list[str]]:
    """Return a digest of a user's file and each that it imports, and the imports from edgedl."""
    found: dict[Path, str] = {}
    imported: set[str] = set()
    waiting = [first]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        content = path.read_bytes()
        found[path] = hashlib.sha256(content).hexdigest()
        names = _read_module(content).imports
        imported |= {name for name in names if name.split(".")[0] == "edgedl"}
        if any(name.endswith("*") for name in names - imported):
            raise _Unfollowed
        waiting += [p for name in names - imported for p in _neighbours(path.parent, name)]
    return sorted(found.values()), sorted(imported)


def _neighbours(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files of the user's that an import runs; none of a library's."""
    steps = name.split(".")
    top = folder / steps[0]
    if not top.is_dir() and not top.with_suffix(".py").is_file():
        spec = importlib.util.find_spec(steps[0])
        origin = None if spec is None else spec.origin
        if origin is None or not Path(origin).is_file() or origin.startswith(_LIBRARIES):
            return
        folder = Path(origin).parent
        folder = folder.parent if Path(origin).name == "__init__.py" else folder
    for end in range(1, len(steps) + 1):
        path = folder.joinpath(*steps[:end])
        yield from (p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file())


def _bytes_digest(path: Path) -> str:
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _read_module(content: bytes) -> _Module:
    """Read a file of code."""
    tree = ast.parse(content)
    try:
        names, data = _named(tree)
    except _Unfollowed:
        names, data = None, frozenset()
    for node in ast.walk(tree):
        _drop_docstring(node)
    return _Module(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), names, data)


def _named(tree: ast.Module) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of what code imports, and the packages whose files it reads.

    Raises:
        _Unfollowed: a name is not constant.
    """
    imports: set[str] = set()
    data: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= _imported_from(node)
        elif isinstance(node, ast.Call) and _called(node) in _IMPORTING:
            imports.add(_constant_name(node))
        elif isinstance(node, ast.Call) and _called(node) == "files":
            data.add(_constant_name(node))
    return frozenset(imports), frozenset(data)


def _imported_from(node: ast.ImportFrom) -> set[str]:
    if node.level > 1 or any(a.asname and a.name in (*_IMPORTING, "files") for a in node.names):
        raise _Unfollowed
    return {".".join(filter(None, (node.module, alias.name))) for alias in node.names}


def _called(call: ast.Call) -> str:
    """Return the last name of what is called."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _constant_name(call: ast.Call) -> str:
    """Return the name that a call is given; of one that begins constant, all that begin so."""
    given = call.args[0] if call.args else None
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        return given.value
    if isinstance(given, ast.JoinedStr):
        first = given.values[0]
        begins = first.value if isinstance(first, ast.Constant) else None
        if isinstance(begins, str) and "." in begins:
            return f"{begins}*"
    raise _Unfollowed


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[isinstance(first.value.value, str) :]
