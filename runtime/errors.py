"""The errors a user meets. Each carries the exit code that the command line returns."""


class EdgedlError(Exception):
    """Base of every expected failure: one readable line that says what to do.

    Attributes:
        exit_code: process exit code of the command that meets it.
    """

    exit_code = 2


class BadInputError(EdgedlError, ValueError):
    """Wrong usage, or an input or setting that cannot be used (exit code 2)."""


class BudgetMissedError(EdgedlError):
    """A budget on accuracy or latency was missed (exit code 1)."""

    exit_code = 1


class InvalidMeasurementError(EdgedlError):
    """The measurement is not valid; the message says why (exit code 3)."""

    exit_code = 3


class BackendUnavailableError(EdgedlError):
    """A runtime, driver or client program is not there (exit code 4)."""

    exit_code = 4

    @classmethod
    def of(cls, error: ImportError, install: str) -> "BackendUnavailableError":
        """Return what an import that failed means.

        A library that is there and cannot be loaded (too little memory, a wrong processor) is not
        helped by installing it.

        Args:
            error: of the import.
            install: what to say where the library is not there.
        """
        if isinstance(error, ModuleNotFoundError):
            return cls(install)
        first = str(error).strip().partition("\n")[0]
        return cls(f"{error.name or 'a library'} is installed and cannot be loaded: {first}")


class IntegrityError(EdgedlError):
    """A file is not what its manifest says it is (exit code 5)."""

    exit_code = 5


class FileFailedError(EdgedlError):
    """A model file does not run; the others do.

    Attributes:
        name: of the file in the measurement.
        reason: what its runtime says.
    """

    def __init__(self, name: str, reason: str) -> None:
        """Take the name and the reason."""
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


# What can be told to another process, by its class.
_TOLD: dict[str, type[EdgedlError]] = {
    error.__name__: error
    for error in (BackendUnavailableError, BadInputError, IntegrityError, EdgedlError)
}
Told = tuple[str, tuple[str, ...]]


def tell(error: EdgedlError) -> Told:
    """Return an error as data, for another process.

    >>> tell(BadInputError("no such file"))
    ('BadInputError', ('no such file',))
    """
    if isinstance(error, FileFailedError):
        return FileFailedError.__name__, (error.name, error.reason)
    # The class of its own may be one that the other process does not know.
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _TOLD)
    return name, (str(error),)


def told(data: Told) -> EdgedlError:
    """Return the error that another process has told.

    >>> told(("FileFailedError", ("a", "it crashes")))
    FileFailedError('a: it crashes')
    """
    name, arguments = data
    if name == FileFailedError.__name__:
        return FileFailedError(*arguments)
    return _TOLD[name](*arguments)
