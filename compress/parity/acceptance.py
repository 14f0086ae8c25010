"""The one rule: which files are refused, which ship with a finding, and which ship.

It holds for every precision and runtime. docs/acceptance.md says it in words.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from edgedl.compress.errors import ExportError
from edgedl.runtime.bundle.certificates import OutputParity, Parity, PartParity
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.precision import Precision
from edgedl.runtime.selfcheck.golden import GoldenCheck

# A file of integers that is as near to its torch graph as this, in dB, computes what it was made
# from, whatever single values differ by.
SAME_DB = 30.0
# A part with less is destroyed: a third of its size is noise.
DESTROYED_DB = 10.0
# A part with less than this is destroyed, too, if the output as a whole has so much more: it lies
# on a grid that was made for something else.
WEAK_DB = 20.0
BEHIND_DB = 10.0
# Share of the values of a part that vary in the float network and are constant in the file.
MOST_CONSTANT = 0.5
# The same of values that are clipped.
MOST_SATURATED = 0.25
# What is nearer to a limit than this after few samples, in dB or as a share of values, may be
# beyond it after more.
NEAR_DB = 5.0
NEAR_SHARE = 0.15
# Tolerances of files that pass by their dB: what was measured, and half as much.
MARGIN = 1.5


class NotAcceptedError(ExportError):
    """A file of integers does not compute what it was made from.

    Attributes:
        output: number of the output.
    """

    def __init__(self, message: str, output: int) -> None:
        """Take the message and the number."""
        super().__init__(message)
        self.output = output


def accept(artifact: Artifact, parity: Parity, golden: GoldenCheck | None) -> Artifact:
    """Return an artifact with its parity, and the tolerances that its golden outputs need.

    Args:
        artifact: that was run.
        parity: of its outputs, against its torch graph and against the float network.
        golden: how its golden outputs compare; None where a stand-in computed it.

    Raises:
        ExportError: it does not compute what it was made from.
    """
    if not np.isfinite(parity.max_abs_error):
        raise ExportError(f"{artifact.name} gives values that are not finite")
    if golden is None or golden.passed:
        return msgspec.structs.replace(artifact, parity=parity)
    differs = (
        f"{artifact.name} differs from the torch graph by {golden.max_abs_error:.3g} on its "
        f"runtime, allowed is {golden.tolerance:.3g}"
    )
    if not artifact.kind.computes_in_integers or not golden.tolerance:
        raise ExportError(differs)
    for index, output in enumerate(parity.outputs):
        if not computes_its_graph(output, artifact.kind):
            needed = needed_db(output, artifact.kind)
            raise NotAcceptedError(
                f"{differs}; output '{output.name}' has {output.sqnr_db or 0.0:.1f} dB of it, "
                f"needed are {needed:.0f}",
                index,
            )
    share = golden.share * MARGIN
    tolerances = tuple(share * t for t in artifact.golden_tolerances)
    return msgspec.structs.replace(artifact, parity=parity, golden_tolerances=tolerances)


def computes_its_graph(output: OutputParity, precision: Precision) -> bool:
    """Say whether an output outside its tolerance is near enough to its torch graph all the same.

    Only files that compute in integers may be: roundings of floats flip nothing.
    """
    if not precision.computes_in_integers:
        return False
    if output.sqnr_db is None:
        # None differs, or the graph gives zeros alone.
        return output.max_abs_error == 0.0
    return output.sqnr_db >= needed_db(output, precision)


def needed_db(output: OutputParity, precision: Precision) -> float:
    """Return the dB that an output of integers must have against its torch graph.

    Roundings that fall the other way flip others behind them: the runtime may add as much noise as
    the precision does. A graph whose ranges the runtime finds itself is a float graph: all the
    noise of the precision is the file's.
    """
    if precision.source == "running":
        return DESTROYED_DB
    return SAME_DB if output.graph_sqnr_db is None else min(SAME_DB, output.graph_sqnr_db)


def is_decided(outputs: Sequence[OutputParity], precision: Precision) -> bool:
    """Say whether few samples show that a file ships, without a finding.

    Where a limit is missed, or nearly, they do not.
    """
    return all(_is_far(output, precision) for output in outputs)


def _is_far(output: OutputParity, precision: Precision) -> bool:
    """Say whether an output is far from every limit."""
    own, whole = output.sqnr_db, output.float32_sqnr_db
    integers = precision.computes_in_integers
    if integers and own is not None and own < needed_db(output, precision) + NEAR_DB:
        return False
    if whole is not None and whole < DESTROYED_DB + NEAR_DB:
        return False
    return not any(_is_near(part, whole) for part in output.parts)


def _is_near(part: PartParity, whole: float | None) -> bool:
    if part.constant > MOST_CONSTANT - NEAR_SHARE or part.saturated > MOST_SATURATED - NEAR_SHARE:
        return True
    db = part.sqnr_db
    if db is None:
        return False
    behind = whole is None or whole - db >= BEHIND_DB - NEAR_DB
    return db < DESTROYED_DB + NEAR_DB or (db < WEAK_DB + NEAR_DB and behind)


def destroyed(output: OutputParity) -> list[tuple[PartParity | None, str]]:
    """Return the parts that a file destroys, None being all of the output, and the evidence."""
    whole = output.float32_sqnr_db
    found: list[tuple[PartParity | None, str]] = []
    for part in output.parts:
        why = _why_destroyed(part, whole)
        if why:
            found.append((part, why))
    if not found and whole is not None and whole < DESTROYED_DB:
        found.append((None, f"{whole:.1f} dB of the float network"))
    return found


def _why_destroyed(part: PartParity, whole: float | None) -> str:
    if part.constant > MOST_CONSTANT:
        share = f"{100 * part.constant:.0f} % of the values that vary"
        return f"{share} in the float network are constant"
    db = part.sqnr_db
    if db is not None:
        behind = whole is None or whole - db >= BEHIND_DB
        if db < DESTROYED_DB or (db < WEAK_DB and behind):
            return f"{db:.1f} dB of the float network"
    if part.saturated > MOST_SATURATED:
        return f"{100 * part.saturated:.0f} % of the values are clipped"
    return ""
