"""Calls without copies: the caller writes where the runtime reads, and reads where it writes."""

from collections.abc import Callable, Sequence

from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError, EdgedlError, FileFailedError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.wording import reason


class Bound:
    """One call's memory; one thread at a time may use it.

    It lives as long as the runner has the model: after a swap, and after ``close``, ``run`` raises.

    Attributes:
        inputs: arrays in the network's shapes, for the caller to write into.
    """

    def __init__(
        self, model: LoadedModel, inputs: Sequence[Array], is_current: Callable[[], bool]
    ) -> None:
        """Check and run once, and take the memory.

        Args:
            model: that runs.
            inputs: of the shapes that calls will have.
            is_current: says whether the runner still has the model.

        Raises:
            BadInputError: as a call.
        """
        outputs = model(*inputs)
        self._model, self._is_current = model, is_current
        ready = model.ready(inputs, outputs)
        # Files that take and give half precision do so in calls, too.
        self._ready = ready if ready is not None and ready.is_float32 else None
        self.inputs: tuple[Array, ...] = tuple(
            [x.copy() for x in inputs] if self._ready is None else self._ready.views
        )

    def run(self) -> tuple[Array, ...]:
        """Run on what ``inputs`` hold; the outputs are valid until the next run.

        Nothing is checked and nothing copied where the file's numbers are the network's, on
        runtimes that read the caller's memory (ONNX Runtime). Elsewhere it is a call like others.

        Raises:
            BadInputError: the runner has another model now, or is closed.
            FileFailedError: the runtime fails.
        """
        if not self._is_current():
            raise BadInputError("the runner was closed, or has another model: bind again")
        if self._ready is None:
            return self._model(*self.inputs)
        try:
            return self._ready.run()
        except EdgedlError:
            raise
        except Exception as error:
            # Runtimes raise anything.
            raise FileFailedError(self._model.artifact.name, reason(error)) from error
