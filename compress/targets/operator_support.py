"""What the operator table, the passes and the targets say of operators; nothing is run."""

from collections.abc import Sequence

import msgspec

from edgedl.compress.graph.operators.operator import Operator, Ranges
from edgedl.compress.graph.operators.table import ROWS
from edgedl.compress.graph.passes.canonicalize import ORDER
from edgedl.compress.targets.target import TARGETS, Target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import INT8
from edgedl.runtime.wording import meant


class OperatorSupport(msgspec.Struct, frozen=True):
    """What the runtimes make of one operator.

    Attributes:
        operator: torch's name of it.
        runtimes: runtime -> "int8" where it computes the operator in integers, else "float".
        rewritten_by: passes that write an operator without an integer form with others, where they
            can; what those compute in counts then.
    """

    operator: str
    runtimes: dict[str, str]
    rewritten_by: tuple[str, ...]


def operator_support(names: Sequence[str] = ()) -> list[OperatorSupport]:
    """Return what is known of the operators whose names contain one of some parts.

    Args:
        names: the parts; without one, all operators are returned.

    Raises:
        BadInputError: a part is in no name.
    """
    for name in names:
        if not any(name.lower() in row.name for row in ROWS):
            known = meant(name, [row.name for row in ROWS])
            raise BadInputError(f"no operator has '{name}' in its name{known}")
    rows = [row for row in ROWS if not names or any(n.lower() in row.name for n in names)]
    return [
        OperatorSupport(row.name, {t.name: _kind(t, row) for t in TARGETS}, _rewritten_by(row))
        for row in rows
    ]


def decide_themselves() -> list[str]:
    """Return the runtimes that compute more in integers than what reads pairs, as they see fit."""
    return [target.name for target in TARGETS if target.pairs == "layer_inputs"]


def _kind(target: Target, row: Operator) -> str:
    integers = INT8.name in target.precisions and target.computes_in_integers(row)
    return "int8" if integers else "float"


def _rewritten_by(row: Operator) -> tuple[str, ...]:
    if row.ranges is not Ranges.FLOAT:
        return ()
    steps = [step for walk in ORDER for step in walk]
    return tuple(s.name for s in steps if any(o in s.operators for o in row.overloads))
