"""Build a pruned or split network again, from the module it was made of and a bundle's history."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.stage import Stage, stage_name
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError


def rebuild(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    history: Iterable[HistoryEntry],
    weights: Mapping[str, Tensor] | None = None,
    own: Iterable[type[Stage]] = (),
) -> TracedNetwork:
    """Return a module with the channels, blocks and layers that a history left.

    Args:
        module: the architecture that was pruned or split, with any weights.
        example_inputs: one tensor [N, ...] per argument.
        history: of the bundle's manifest; stages that change no sizes are passed over.
        weights: of the bundle's network.safetensors; None leaves those of the module.
        own: classes of the user's own stages in the history.

    Raises:
        BadInputError: the module is not the one that was pruned, or the weights are others.
        TraceError: it cannot be traced.
    """
    stages = {**STAGES, **{stage_name(stage): stage for stage in own}}
    graph = export_graph(module, example_inputs)
    for entry in history:
        graph = stages.get(entry.stage, Stage).rebuild(graph, entry)
    network = TracedNetwork(graph)
    if weights is not None:
        try:
            network.load_tensors(weights)
        except RuntimeError as error:
            raise BadInputError(f"the weights do not fit the history: {error}") from error
    return network
