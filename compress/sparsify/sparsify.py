"""The stage that sets weights to zero."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.convolution import TRANSPOSED
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.stored_weights import StoredWeight, stored_weights
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.sparsify.patterns import (
    fits_two_of_four,
    is_two_of_four,
    largest_of_all,
    largest_of_each,
    sparsity_of,
    two_of_four,
)
from edgedl.compress.stage import MILDER, Found, Stage
from edgedl.compress.state import ZEROS, ModelState, Phase, Trait
from edgedl.runtime.errors import BadInputError


class Sparsify(Stage, frozen=True, tag="sparsify"):
    """Set the smallest weights of convolutions and linear layers to zero.

    The zeros stay through every later stage: training sets them to zero again after each step,
    rounding leaves them, and symmetric integers have a zero. The network should be fine-tuned
    afterwards. Dense kernels compute zeros as they compute other numbers: "unstructured" makes a
    file smaller once it is compressed, and "2:4" is faster on GPUs with kernels for it (TensorRT
    on Ampere and later); on a CPU neither saves time.

    Source: Han et al., "Learning both weights and connections for efficient neural networks",
    2015; Mishra et al., "Accelerating sparse deep neural networks", 2021, section 3 ("2:4").

    Attributes:
        sparsity: share of the weights that becomes zero; "2:4" is a sparsity of 0.5.
        pattern: "unstructured", or "2:4": of every four inputs two stay. A layer whose inputs are
            no multiple of four stays as it is, and the history names it.
        scope: the same share of every layer ("uniform"), or the smallest wherever they are.
        keep: layers that stay as they are: module paths, with all that is inside, or wildcards.
    """

    works_on: ClassVar[Phase] = Phase.TRAINED
    yields: ClassVar[Phase] = Phase.TRAINED
    gives: ClassVar[frozenset[Trait]] = frozenset({ZEROS})

    sparsity: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    scope: Literal["uniform", "global"] = "uniform"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings that a pattern of two of four cannot have.

        Raises:
            BadInputError: which it is.
        """
        super().__post_init__()
        if self.pattern == "2:4" and (self.sparsity != 0.5 or self.scope != "uniform"):
            raise BadInputError(
                "the pattern 2:4 zeroes half of every layer: leave sparsity and scope out"
            )

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state of the sparse network; its history says how sparse each layer is.

        Raises:
            BadInputError: a name in ``keep`` matches no layer, or no layer is left.
        """
        graph = state.trainable_graph()
        chosen, left = self._chosen(stored_weights(graph, self.keep), _transposed(graph))
        weights = [weight.value.detach() for weight in chosen]
        with torch.no_grad():
            for weight, mask in zip(weights, self._masks(weights), strict=True):
                weight.masked_fill_(~mask, 0.0)
        done = state.with_network(TracedNetwork(graph))
        return done, {**self._measured(chosen, done.graph), "left": left}

    def milder(self) -> "Sparsify | None":
        """Set fewer weights to zero; a pattern has its share."""
        if self.pattern == "2:4":
            return None
        return msgspec.structs.replace(self, sparsity=round(self.sparsity * MILDER, 4))

    def _chosen(
        self, weights: list[StoredWeight], transposed: Sequence[str]
    ) -> tuple[list[StoredWeight], tuple[str, ...]]:
        """Return the weights to make sparse, and what is said of those that are left."""
        fitting = [w for w in weights if self.pattern != "2:4" or fits_two_of_four(w.value)]
        left = (
            *(
                f"{w.path}: {w.value.shape[1]} inputs per group are no multiple of 4"
                for w in weights
                if w not in fitting
            ),
            *(f"{path}: transposed convolutions stay as they are" for path in transposed),
        )
        if not fitting:
            reason = "; ".join(left) or "it has no convolution or linear layer but those in keep"
            raise BadInputError(f"there is nothing to make sparse in the network: {reason}")
        return fitting, left

    def _masks(self, weights: Sequence[Tensor]) -> list[Tensor]:
        if self.pattern == "2:4":
            return [two_of_four(weight) for weight in weights]
        choose = largest_of_each if self.scope == "uniform" else largest_of_all
        return choose(weights, self.sparsity)

    def _measured(
        self, chosen: list[StoredWeight], traced: fx.GraphModule
    ) -> dict[str, float | bool | tuple[str, ...] | None]:
        """Return what is found in the graph that the files are made of, batch norms folded."""
        nodes = {node.name: node for node in traced.graph.nodes}
        found = {}
        for weight in chosen:
            layer = Weighted.of(nodes[weight.readers[0].name])
            found[weight.path] = get_tensor(traced, layer.weight_path)
        return {
            "measured_sparsity": sparsity_of(list(found.values())),
            "layers": tuple(f"{path}={sparsity_of([w]):.4g}" for path, w in found.items()),
            "verified": all(is_two_of_four(w) for w in found.values())
            if self.pattern == "2:4"
            else None,
        }


def _transposed(graph: fx.GraphModule) -> list[str]:
    """Return the paths of the weights of transposed convolutions."""
    layers = [Weighted.of(n) for n in graph.graph.nodes if row_of(n) is TRANSPOSED]
    return [layer.weight_path for layer in layers if layer.has_stored_weight]
