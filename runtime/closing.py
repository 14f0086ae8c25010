"""Objects that a ``with`` block closes."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

Own = TypeVar("Own", bound="Closing")


class Closing(ABC):
    """Something with a ``close``."""

    @abstractmethod
    def close(self) -> None:
        """Release what it holds."""

    def __enter__(self: Own) -> Own:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
