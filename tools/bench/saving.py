"""Why a network with fewer multiply-accumulates is not as much faster."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.precision import FLOAT32

# Channels that AVX2 computes at once, in float32.
AVX2_BLOCK = 8
# A speed-up of this share of what the arithmetic promises keeps the promise.
KEPT = 0.8
# Blocks explain something if counting in them takes this share off the promise.
BLOCKS_MATTER = 0.9
# What no width takes away explains something if it is this share of the latency that is left.
FIXED_MATTERS = 0.5
# Weights read for so few multiply-accumulates are waited for, if no cache holds them.
BYTES_PER_MAC = 0.5
CACHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Saving:
    """What pruning has saved in theory.

    Attributes:
        fewer: multiply-accumulates before over after.
        in_blocks: the same if channels are counted in the blocks that kernels compute.
        multiple: channels of a block.
        widths: of the groups that were narrowed.
        macs: that are left.
        fixed: latency of the narrowest network over that of the parent, where it was measured.
    """

    fewer: float
    in_blocks: float
    multiple: int
    widths: tuple[int, ...]
    macs: int
    fixed: float | None = None


def saving_of(history: Sequence[HistoryEntry], backend: str, isa: Collection[str]) -> Saving | None:
    """Return what the stages of a bundle have saved together; None if none prunes.

    What was timed of the narrowest network counts if it is of a float32 file of that runtime, and
    of the parent: if no other stage has made the network smaller. The blocks of channels are those
    of the target; on a processor with smaller ones they explain nothing.
    """
    fewer = in_blocks = 1.0
    macs, multiple, stages = 0, 1, 0
    widths: tuple[int, ...] = ()
    fixed: float | None = None
    for entry in history:
        before, after = (_integer(entry, f"macs_{when}") for when in ("before", "after"))
        if not before or not after:
            continue
        fewer, macs = fewer * before / after, after
        blocks = [_integer(entry, f"macs_in_blocks_{when}") for when in ("before", "after")]
        in_blocks *= blocks[0] / blocks[1] if all(blocks) else before / after
        if "widths" in entry.settings:
            widths, multiple = _widths(entry), _integer(entry, "channel_multiple") or 1
        narrowest = entry.settings.get("latency_ratio_narrowest")
        timed = (entry.settings.get("runtime"), entry.settings.get("precision"))
        if isinstance(narrowest, float) and timed == (backend, FLOAT32.name):
            fixed = narrowest
        stages += 1
    fixed = fixed if stages == 1 else None
    if multiple > AVX2_BLOCK and "avx2" in isa and "avx512f" not in isa:
        in_blocks = fewer
    return Saving(fewer, in_blocks, multiple, widths, macs, fixed) if macs else None


def explain_saving(saving: Saving, ratio: float, size_bytes: int) -> str:
    """Return why less of a saving in arithmetic shows in time; empty if it shows.

    Args:
        saving: in theory.
        ratio: measured latency over that of the parent.
        size_bytes: of the file, nearly all of it weights.

    >>> explain_saving(Saving(2.0, 1.1, 16, (13, 32), 10**6), 1.05, 10**4)
    "it computes 0.48 of its parent's multiply-accumulates per second: kernels compute blocks of \
16 channels, widths of 13 do not fill them, and counted in whole blocks there are only 1.10x fewer"
    """
    rate = 1 / (ratio * saving.fewer)
    if rate >= KEPT:
        return ""
    reasons = []
    unaligned = sorted({w for w in saving.widths if w % saving.multiple})
    if unaligned and saving.in_blocks < BLOCKS_MATTER * saving.fewer:
        reasons.append(
            f"kernels compute blocks of {saving.multiple} channels, widths of "
            f"{', '.join(map(str, unaligned))} do not fill them, and counted in whole blocks there "
            f"are only {saving.in_blocks:.2f}x fewer"
        )
    if saving.fixed is not None and saving.fixed > FIXED_MATTERS * ratio:
        reasons.append(
            f"even its narrowest form takes {saving.fixed:.2f} of its parent's time: that time is "
            "spent on calls and on layers that are not pruned"
        )
    if size_bytes > max(CACHED_BYTES, BYTES_PER_MAC * saving.macs):
        reasons.append(
            f"it reads {size_bytes / saving.macs:.1f} bytes of weights for each of them, so memory "
            "limits the speed"
        )
    why = "; ".join(reasons) or "its layers are too small to use the kernels fully"
    return f"it computes {rate:.2f} of its parent's multiply-accumulates per second: {why}"


def _integer(entry: HistoryEntry, key: str) -> int:
    value: Setting = entry.settings.get(key)
    return value if isinstance(value, int) else 0


def _widths(entry: HistoryEntry) -> tuple[int, ...]:
    written = entry.settings["widths"]
    lines = written if isinstance(written, tuple) else ()
    return tuple(int(line.rpartition("=")[2]) for line in lines)
