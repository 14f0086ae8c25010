"""A user's file with stages of their own, for tests to copy."""

from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import fx

from edgedl.compress.graph.stored_weights import stored_weights
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.runtime.bundle.manifest import HistoryEntry

PRUNE = PruneChannels(ratio=0.5, multiple=2)


class Scale(Stage, frozen=True, tag="scale"):
    """Multiply the weights of all layers."""

    works_on = yields = Phase.TRAINED

    factor: Annotated[float, Meta(gt=0, le=1)] = 0.5
    keep: tuple[str, ...] = ()

    def milder(self) -> "Scale":
        return msgspec.structs.replace(self, factor=(1 + self.factor) / 2)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        graph = state.trainable_graph()
        weights = stored_weights(graph, self.keep)
        with torch.no_grad():
            for weight in weights:
                weight.value.mul_(self.factor)
        return state.with_network(TracedNetwork(graph)), {"scaled": len(weights)}


class Thin(Stage, frozen=True):
    """Remove channels as a shipped stage does, under another name."""

    works_on = yields = Phase.TRAINED
    samples: Annotated[int, Meta(ge=1)] = 8

    @classmethod
    def rebuild(cls, graph: fx.GraphModule, entry: HistoryEntry) -> fx.GraphModule:
        return PruneChannels.rebuild(graph, entry)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return PRUNE.change(state)


class Round(Stage, frozen=True, tag="round"):
    """Say that the float graph is rewritten, and leave it."""

    works_on = yields = Phase.FLOAT_GRAPH

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return state, {}


class NoStage:
    """What no recipe can hold."""
