"""The stage that leaves each layer a few different weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta

from edgedl.compress.cluster.shared_values import VALUE_BYTES, SharedValues, share_values
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.stored_weights import StoredWeight, stored_weights
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import SHARED_WEIGHTS, ModelState, NothingRemovedError, Trait

MOST_BITS = 8


class ClusterWeights(Stage, frozen=True, tag="cluster_weights"):
    """Weight sharing: k-means of each layer's weights to a few values.

    A file gets smaller once it is compressed (zip, gzip, an app package); no runtime stores or
    computes with shared values, so that it is not smaller in memory and not faster. This is for
    the float files: the steps of int8 differ from channel to channel, and so do the integers of
    one shared value. Batch norms are folded first, since they would make the values many again:
    the recipe needs training before this. Zeros stay zero.

    Source: Han et al., "Deep compression: compressing deep neural networks with pruning, trained
    quantization and Huffman coding", 2016, section 3.

    Attributes:
        bits: a layer has at most 2^bits different weights.
        keep: layers that stay as they are: module paths, with all that is inside, or wildcards.
    """

    gives: ClassVar[frozenset[Trait]] = frozenset({SHARED_WEIGHTS})
    undoes: ClassVar[frozenset[Trait]] = frozenset({SHARED_WEIGHTS})

    bits: Annotated[int, Meta(ge=1, le=MOST_BITS)] = 5
    keep: tuple[str, ...] = ()

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state of the clustered network; its history says how small it can become.

        The sizes are those of the weights that are shared: as float32, and as indices at their
        entropy with a codebook for each. A layer that would not get smaller stays as it is.

        Raises:
            BadInputError: a name in ``keep`` matches no layer, or no layer gets smaller.
        """
        graph = copy_graph(state.graph)
        every = stored_weights(graph, self.keep)
        found = [share_values(w.value.detach().flatten(), 2**self.bits) for w in every]
        shared = [pair for pair in zip(every, found, strict=True) if _is_smaller(pair[1])]
        if not shared:
            raise NothingRemovedError(
                f"no layer gets smaller with {2**self.bits} different weights: lower bits, or "
                "leave the stage out"
            )
        with torch.no_grad():
            for weight, values in shared:
                weight.value.copy_(values.weights().view(weight.value.shape))
        parent = state.parent or state.subject.module
        return replace(state, graph=graph, parent=parent), _measured(shared)

    def milder(self) -> "ClusterWeights | None":
        """Give layers twice as many values."""
        more = self.bits + 1
        return msgspec.structs.replace(self, bits=more) if more <= MOST_BITS else None


def _is_smaller(values: SharedValues) -> bool:
    return values.coded_bytes() < VALUE_BYTES * len(values.indices)


def _measured(
    shared: Sequence[tuple[StoredWeight, SharedValues]],
) -> dict[str, int | tuple[str, ...]]:
    """Return the bits of an index in each layer, and the bytes of all before and after."""
    lines = tuple(
        f"{layer_name(w.readers[0]) or w.readers[0].name}={values.entropy_bits():.3f}"
        for w, values in shared
    )
    return {
        "entropy_bits": lines,
        "bytes_before": sum(VALUE_BYTES * len(values.indices) for _, values in shared),
        "bytes_after": sum(values.coded_bytes() for _, values in shared),
    }
