"""Names of data: ``KIND:PATH?option=value&option=value``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant


@dataclass(frozen=True)
class DataReference:
    """What a user names.

    Attributes:
        kind: how it is read, such as "imagefolder".
        path: file or folder.
        options: the rest.
    """

    kind: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, known: Mapping[str, tuple[str, ...]]) -> "DataReference":
        """Read a name.

        Args:
            text: the name.
            known: the options of each kind.

        Raises:
            BadInputError: no such kind or option, or one is given twice or without a value.

        >>> DataReference.of("csv:a.csv?target=y", {"csv": ("target",)}).options
        {'target': 'y'}
        """
        kind, colon, rest = text.partition(":")
        if not colon or kind not in known:
            raise BadInputError(
                f"data '{text}' begin with no kind{meant(kind, known)}: write KIND:PATH, "
                f"KIND is one of {', '.join(known)}"
            )
        path, _, query = rest.partition("?")
        if not path:
            raise BadInputError(f"data '{text}' name no file or folder: write {kind}:PATH")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError as error:
            raise BadInputError(
                f"'{query}' in '{text}' are no options: write ?name=value&name=value"
            ) from error
        options: dict[str, str] = {}
        for name, value in pairs:
            if name not in known[kind]:
                raise BadInputError(
                    f"{kind} has no option '{name}'{meant(name, known[kind])}; it has "
                    f"{', '.join(known[kind])}"
                )
            if name in options or not value:
                problem = "given twice" if name in options else "given without a value"
                raise BadInputError(f"option '{name}' of '{text}' is {problem}")
            options[name] = value
        return cls(kind, Path(path), options)

    def number(self, name: str, default: int, least: int = 1) -> int:
        """Return an option that is a whole number.

        Raises:
            BadInputError: it is none, or too small.
        """
        value = self.options.get(name)
        if value is None:
            return default
        if not value.isdecimal() or int(value) < least:
            raise BadInputError(f"{name} must be a whole number from {least} on, got '{value}'")
        return int(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return an option of numbers with commas between them; empty if it is not given.

        Raises:
            BadInputError: one is no number.
        """
        value = self.options.get(name)
        if value is None:
            return ()
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError as error:
            raise BadInputError(f"{name} must be numbers such as 0.5,0.5,0.5: '{value}'") from error

    def choice(self, name: str, default: str, known: tuple[str, ...]) -> str:
        """Return an option that is one of some words.

        Raises:
            BadInputError: it is another.
        """
        value = self.options.get(name, default)
        if value not in known:
            raise BadInputError(f"{name} is '{value}'{meant(value, known)}: {', '.join(known)}")
        return value
