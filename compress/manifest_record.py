"""What a bundle's manifest says of the network, and of the tools that made it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from torch import fx

from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.lengths import free_output_axes
from edgedl.compress.graph.values import value_of
from edgedl.compress.state import ModelState
from edgedl.compress.toolchain import toolchain
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.bundle import record_files
from edgedl.runtime.bundle.manifest import Artifact, Manifest, TaskRecord, TensorSpec
from edgedl.runtime.errors import BadInputError


def describe(
    state: ModelState, artifacts: list[Artifact], folder: Path, inputs: Sequence[Array]
) -> Manifest:
    """Return the manifest of a bundle whose files are written.

    Args:
        state: of the network.
        artifacts: of its files.
        folder: that they are in.
        inputs: of the first calibration samples, [N, ...] each.
    """
    subject = state.subject
    _check_states(state)
    free_outputs = free_output_axes(state.graph, subject.example_inputs(), subject.free_axes)
    return Manifest(
        name=subject.name,
        task=TaskRecord(subject.task.name, subject.task.metric, tuple(subject.task.classes)),
        inputs=tuple(
            _with_range(_logical(node, subject.free_axes), x)
            for node, x in zip(input_nodes(state.graph), inputs, strict=True)
        ),
        outputs=tuple(
            _logical(n, axes)
            for n, axes in zip(output_nodes(state.graph), free_outputs, strict=True)
        ),
        preprocessing=subject.task.preprocessing,
        artifacts=tuple(artifacts),
        files=record_files(folder),
        history=state.history,
        toolchain=toolchain(),
        licence=subject.licence,
        data=subject.data,
        states=subject.states,
    )


def _check_states(state: ModelState) -> None:
    """Refuse states that are not the last inputs and outputs of the network.

    Raises:
        BadInputError: one is not; the message names what is there.
    """
    states = state.subject.states
    for kind, nodes, names in (
        ("inputs", input_nodes(state.graph), [s.input for s in states]),
        ("outputs", output_nodes(state.graph), [s.output for s in states]),
    ):
        last = [node.name for node in nodes][len(nodes) - len(states) :]
        if last != names:
            raise BadInputError(
                f"the states of the subject '{state.subject.name}' are the {kind} {names}: they "
                f"must be the last {kind} of the network, which are {last}"
            )


def _with_range(spec: TensorSpec, x: Array) -> TensorSpec:
    """Return the description of an input with the range of its values; integers are ids."""
    if x.dtype.kind != "f" or not x.size:
        return spec
    return msgspec.structs.replace(spec, low=float(x.min()), high=float(x.max()))


def _logical(node: fx.Node, free_axes: tuple[int, ...]) -> TensorSpec:
    """Describe an input or output of the graph, None where its size is free."""
    value = value_of(node)
    shape = tuple(None if i in free_axes else int(d) for i, d in enumerate(value.shape))
    return TensorSpec.of(node.name, shape, str(np.dtype(str(value.dtype).removeprefix("torch."))))
