"""Types of options and arguments: names are checked, and completed in the shell, without torch."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edgedl.runtime.errors import BadInputError
from edgedl.tools.terminal import names
from edgedl.tools.terminal.workspace import check_new

if TYPE_CHECKING:
    from edgedl.compress.targets.described import Target

    # Generic since click 8.4 alone.
    AnyType = click.ParamType[Any]
else:
    AnyType = click.ParamType

MAX_THREADS = 64

Parameter = click.Parameter | None
Context = click.Context | None


class Named(AnyType):
    """A name that a function checks and others are offered for; its value stays the text.

    Several can be joined where there is a separator.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[str], object],
        known: Callable[[], Iterable[str]],
        separator: str | None = None,
    ) -> None:
        """Take what errors call it.

        Args:
            name: of the type.
            check: raises BadInputError for what is refused.
            known: the names to offer.
            separator: between several names.
        """
        self.name, self._check, self._known, self._separator = name, check, known, separator

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        """Return the text if it is not refused."""
        self._check(value)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin as the last of the text does; else let the shell find files.

        A package that is missing here has no names.
        """
        before, separator, last = "", "", incomplete
        if self._separator is not None:
            before, separator, last = incomplete.rpartition(self._separator)
        try:
            fitting = [name for name in self._known() if name.startswith(last)]
        except ModuleNotFoundError:
            fitting = []
        if not fitting:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(f"{before}{separator}{name}") for name in fitting]


class Targets(Named):
    """Targets joined by commas, as descriptions."""

    def __init__(self) -> None:
        """Offer the targets of the package."""
        super().__init__("targets", parse_targets, names.targets, ",")

    def convert(self, value: Any, param: Parameter, ctx: Context) -> "tuple[Target, ...]":
        """Return the descriptions."""
        return parse_targets(value) if isinstance(value, str) else value


class ThreadCounts(AnyType):
    """Thread counts joined by commas."""

    name = "counts"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...]:
        """Return the counts."""
        return parse_threads(value) if isinstance(value, str) else value


class NumberIn(AnyType):
    """A number in a range, which "nan" is not."""

    name = "number"

    def __init__(self, least: float, most: float, says: str, below: bool = False) -> None:
        """Take the ends.

        Args:
            least: number that is taken.
            most: the largest.
            says: what is taken, for the error.
            below: whether ``most`` itself is refused.
        """
        self._least, self._most, self._says, self._below = least, most, says, below

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self._least <= number <= self._most or (self._below and number == self._most):
            raise BadInputError(f"{self._says}, got {value}")
        return number


class NewFolder(click.Path):
    """A folder that can be made."""

    def __init__(self) -> None:
        """Take paths of folders."""
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Path:
        """Return the path if nothing is in its way."""
        check_new(Path(value))
        return Path(value)


class BundleFolder(click.Path):
    """A bundle, or the output folder of ``compress`` around it; a model file where that will do."""

    def __init__(self, or_file: bool = False) -> None:
        """Say whether a file will do."""
        super().__init__(path_type=Path)
        self._or_file = or_file

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Path:
        """Return the bundle's folder, or the file."""
        from edgedl.runtime.bundle.bundle import find_bundle

        path = Path(value)
        return path if self._or_file and path.is_file() else find_bundle(path)


class SizesOfAxis(AnyType):
    """MIN:OPT:MAX of a free axis."""

    name = "sizes"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        """Return the three sizes."""
        from edgedl.runtime.tensorrt.profiles import Sizes

        return value if isinstance(value, Sizes) else Sizes.read(value)


def parse_targets(text: str) -> "tuple[Target, ...]":
    """Read "ort,tflite,tensorrt"; a path ending in .yaml is a target of one's own.

    Raises:
        BadInputError: there is no such target, or two would have files of the same names.

    >>> [target.name for target in parse_targets("ort, tflite")]
    ['ort', 'tflite']
    """
    from edgedl.compress.targets.described import described_target

    given: dict[str, str] = {}
    for name in dict.fromkeys(part.strip() for part in text.split(",")):
        other = given.setdefault(described_target(name).name, name)
        if other != name:
            raise BadInputError(
                f"the files of {other} and {name} would have the same names: rename one of them"
            )
    return tuple(described_target(name) for name in given.values())


def parse_threads(text: str) -> tuple[int, ...]:
    """Read "1,2".

    >>> parse_threads("1,2")
    (1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise BadInputError(f"--threads takes numbers from 1 to {MAX_THREADS}, got '{text}'")
    return tuple(dict.fromkeys(int(part) for part in parts))


SUBJECT = Named("subject", names.check_subject, names.models)
TEACHER = Named("teacher", names.check_teacher, names.models)
MODEL = Named("model", names.check_model, names.models)
DATASET = Named("data set", names.check_dataset, names.datasets)
TASK = Named("task", names.check_task, names.datasets)
RECIPE = Named("recipe", names.check_recipe, names.recipes, "+")
SHIPPED_RECIPE = Named("recipe", names.check_shipped_recipe, names.recipes)
TARGET = Named("target", names.check_target, names.targets)
TARGETS = Targets()
RUNTIME = Named("runtime", names.check_runtime, names.runtimes)
BACKEND = Named("backend", names.check_backend, names.backends)
THREADS = ThreadCounts()
POINTS = NumberIn(0, 100, "--max-drop is in points, 0 to 100")
CONFIDENCE = NumberIn(0.5, 1, "--confidence is a share, 0.5 to below 1", below=True)
MINUTES = NumberIn(0, 1e6, "--search-minutes is a time in minutes, 0 or more")
# How long recipes are tried for a budget where nothing is said.
SEARCH_MINUTES = 30.0
NEW_FOLDER = NewFolder()
SIZES = SizesOfAxis()
BUNDLE = BundleFolder()
BUNDLE_OR_FILE = BundleFolder(or_file=True)
