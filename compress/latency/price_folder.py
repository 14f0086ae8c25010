"""Measured prices on disk, so that one machine times one change of one network once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import Tensor, fx

from edgedl.compress.code_digest import edgedl
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.sizes import size_of
from edgedl.compress.graph.values import shape_of, value_of
from edgedl.compress.toolchain import toolchain
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.estimate import Estimate

# Makes the files, loads and times them.
TIMES = "edgedl.compress.latency.file_timer"


@dataclass(frozen=True)
class PriceFolder:
    """Latency ratios by key, a file for each.

    Attributes:
        path: made when something is kept; None keeps nothing.
    """

    path: Path | None

    def read(self, key: str) -> Estimate | None:
        """Return what was measured; None if nothing was, or its file is damaged."""
        if self.path is None:
            return None
        try:
            found = msgspec.json.decode((self.path / f"{key}.json").read_bytes(), type=Estimate)
        except (OSError, msgspec.DecodeError):
            return None
        return found if 0 < found.lo <= found.value <= found.hi else None

    def prune(self, before: float) -> int:
        """Remove what was measured before a time, in seconds since 1970; return how many."""
        files = [] if self.path is None else list(self.path.glob("*.json"))
        old = [path for path in files if path.stat().st_mtime <= before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def write(self, key: str, ratio: Estimate) -> None:
        """Keep what was measured.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path / f"{key}.json") as out:
                out.write(msgspec.json.encode(ratio))


def price_folder(workspace: Path | None) -> PriceFolder:
    """Return the folder in the user's cache, or in the workspace where no cache is known."""
    try:
        from platformdirs import user_cache_path
    except ImportError:
        return PriceFolder(None if workspace is None else workspace / "prices")
    return PriceFolder(user_cache_path("edgedl") / "prices")


def price_key(whole: fx.GraphModule, changed: fx.GraphModule, target: str, precision: str) -> str:
    """Return what a price depends on: both structures, what makes and runs files, this machine.

    Whether AMX is refused is among the machine's instruction sets.
    """
    context = run_context()
    facts = (
        [_structure(whole), _structure(changed)],
        [target, precision, toolchain(), edgedl().digest(TIMES)],
        [context.cpu, context.isa, context.cores, context.os],
    )
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:32]


def _structure(graph: fx.GraphModule) -> list[str]:
    """Return a graph's operators and sizes, without its weights."""
    lines = []
    for node in graph.graph.nodes:
        shape: list[int] = []
        if node.op == "get_attr":
            shape = list(get_tensor(graph, str(node.target)).shape)
        elif isinstance(value_of(node), Tensor):
            shape = [size_of(d) for d in shape_of(node)]
        lines.append(f"{node.name} {node.op} {node.target} {node.args} {node.kwargs} {shape}")
    return lines
