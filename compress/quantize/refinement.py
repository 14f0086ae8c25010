"""Stages that change a quantized network."""

from typing import ClassVar

from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.runtime.errors import BadInputError

INTEGERS: tuple[QuantizedPrecision, ...] = ("int8", "int8_int16")
# The stage whose networks they change.
QUANTIZER = "quantize_static"


class Refinement(Stage, frozen=True):
    """A stage that changes a quantized network and leaves the float one."""

    works_on: ClassVar[Phase] = Phase.QUANTIZED
    yields: ClassVar[Phase] = Phase.QUANTIZED
    refines: ClassVar[tuple[QuantizedPrecision, ...]] = INTEGERS
    needs: ClassVar[str] = QUANTIZER

    def network(self, state: ModelState) -> QuantizedNetwork:
        """Return the network that it starts from.

        Raises:
            BadInputError: there is none yet, or it is of a precision the stage cannot work on.
        """
        return quantized_by(state, self.name, self.refines)


def quantized_by(
    state: ModelState, who: str, precisions: tuple[QuantizedPrecision, ...] = INTEGERS
) -> QuantizedNetwork:
    """Return the quantized network that a stage, or a command, starts from.

    Raises:
        BadInputError: there is none yet, or it is of another precision.
    """
    if state.quantized is None:
        raise BadInputError(
            f"the stage {who} works on a quantized network: the recipe needs {QUANTIZER} before it"
        )
    precision = state.quantized.encodings.precision
    if precision not in precisions:
        raise BadInputError(
            f"the stage {who} works on {' and '.join(precisions)} networks, this one is "
            f"{precision}: leave the stage out of the recipe"
        )
    return state.quantized
