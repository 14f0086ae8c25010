"""Which operators a runtime computes in integers, by the names of their rows.

The table of operators is imported where it is read: targets are described without torch.
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from edgedl.runtime.errors import BadInputError

if TYPE_CHECKING:
    from torch import fx


class Int16Kernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a runtime with 16-bit activations computes in 8 bits or floats alone.

    Attributes:
        missing: operators without such a kernel.
        without_padding: those that have one for windows inside the edge alone.
        of_activations: those that have one where neither operand is a constant.
    """

    missing: tuple[str, ...] = ()
    without_padding: tuple[str, ...] = ()
    of_activations: tuple[str, ...] = ()

    def has(self, node: "fx.Node") -> bool:
        """Say whether there is a kernel for a node that computes in integers."""
        from edgedl.compress.graph.operators.operator import has_padding, reads_activations
        from edgedl.compress.graph.operators.table import row_of

        name = row_of(node).name
        if name in self.without_padding:
            return not has_padding(node)
        return name not in self.missing and (
            name not in self.of_activations or reads_activations(node)
        )


def check_rows(names: Iterable[str], where: str) -> None:
    """Check the names of operators in a description.

    Raises:
        BadInputError: the table of operators has no row of a name, or one that is always float.
    """
    from edgedl.compress.graph.operators.operator import Ranges
    from edgedl.compress.graph.operators.table import ROWS

    known = [row.name for row in ROWS if row.ranges is not Ranges.FLOAT]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)
            raise BadInputError(
                f"{where}: no operator '{name}' computes in integers, did you mean '{near[0]}'?"
            )
