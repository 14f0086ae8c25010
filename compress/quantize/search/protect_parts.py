"""The stage that keeps layers in float where int8 would destroy a part of an output."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from msgspec import Meta

from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.parity.acceptance import destroyed
from edgedl.compress.parity.blame import find_blame, noisiest_layers
from edgedl.compress.parity.outputs import compare_graphs
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.backend import Array

# A layer that brings less, in dB of the weakest part, is not the one to blame.
LEAST_GAIN_DB = 3.0


class ProtectParts(Refinement, frozen=True, tag="protect_parts"):
    """Keep the layers to blame in float, one after another, until no part is destroyed.

    Attributes:
        samples: calibration samples that outputs are compared on.
        max_layers: that are kept in float.
    """

    samples: Annotated[int, Meta(ge=2)] = 64
    max_layers: Annotated[int, Meta(ge=1)] = 4

    def finds_damage(self, state: ModelState) -> bool:
        """Say whether the quantized network destroys a part of an output."""
        return _weakest(state, self.network(state), self._inputs(state)) is not None

    def noisiest(self, state: ModelState, count: int = 3) -> tuple[str, ...]:
        """Return the layers at which int8 loses most, each with its dB."""
        network = self.network(state)
        emitted = emit(network.graph, network.encodings, REFERENCE)
        found = noisiest_layers(network, emitted, self._inputs(state))
        return tuple(f"{name} ({db:.1f} dB)" for name, db in found[:count] if db > 0)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state with the layers to blame in float.

        Raises:
            BadInputError: the network is not quantized.
        """
        network, inputs = self.network(state), self._inputs(state)
        kept: list[str] = []
        before = _weakest(state, network, inputs)
        while before is not None and len(kept) < self.max_layers:
            output, db = before
            emitted = emit(network.graph, network.encodings, REFERENCE)
            blame = find_blame(network, emitted, output, inputs)
            if not blame.nodes:
                break
            floats = network.encodings.float_nodes | blame.nodes
            trial = replace(network, encodings=replace(network.encodings, float_nodes=floats))
            after = _weakest(state, trial, inputs)
            if after is not None and after[1] < db + LEAST_GAIN_DB:
                break
            state.progress.note(
                f"{blame.layer} stays in float: int8 destroys a part of output {output}"
            )
            network, before = trial, after
            kept.append(blame.layer)
        return replace(state, quantized=network), {
            "kept_float": tuple(kept),
            "cured": before is None,
        }

    def _inputs(self, state: ModelState) -> tuple[Array, ...]:
        batches = list(calibration_inputs(state.subject.task, self.samples, self.samples))
        columns = zip(*batches, strict=True)
        return tuple(np.concatenate([x.numpy() for x in column]) for column in columns)


def _weakest(
    state: ModelState, network: QuantizedNetwork, inputs: tuple[Array, ...]
) -> tuple[int, float] | None:
    """Return the output with the weakest destroyed part, and its dB; None if none is destroyed."""
    emitted = emit(network.graph, network.encodings, REFERENCE)
    found = []
    for index, output in enumerate(compare_graphs(state.graph, emitted, inputs)):
        for part, _ in destroyed(output):
            db = output.float32_sqnr_db if part is None else part.sqnr_db
            found.append((0.0 if db is None else db, index))
    if not found:
        return None
    db, index = min(found)
    return index, db
