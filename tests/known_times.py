"""Times that are the same on any machine, for tests of what is decided by times."""

from collections.abc import Mapping

import pytest
from torch import fx

from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.run import count_macs
from edgedl.compress.latency.file_timer import FileTimer
from edgedl.runtime.measure.estimate import Estimate

# What a layer costs beside its arithmetic, in multiply-adds.
OF_A_LAYER = 2000


def use_known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file take the time of its multiply-adds and layers; it is made and timed all the same.

    What is measured on a machine that has other work changes from run to run.
    """
    measured = FileTimer.ratios

    def known(timer: FileTimer, graphs: Mapping[str, fx.GraphModule]) -> dict[str, Estimate]:
        found = measured(timer, graphs)
        assert found.keys() == graphs.keys()
        assert all(0 < ratio.lo <= ratio.value <= ratio.hi for ratio in found.values())
        whole = _work(timer, timer._graph)
        return {name: _about(_work(timer, graph) / whole) for name, graph in graphs.items()}

    monkeypatch.setattr(FileTimer, "ratios", known)


def _work(timer: FileTimer, graph: fx.GraphModule) -> int:
    layers = sum(path.endswith("weight") for path, _ in graph.named_parameters())
    inputs = timer._state.subject.example_inputs()
    return count_macs(copy_graph(graph), inputs) + OF_A_LAYER * layers


def _about(ratio: float) -> Estimate:
    return Estimate(ratio, 0.99 * ratio, 1.01 * ratio)
