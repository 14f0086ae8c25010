"""The result of a stage as a file of tensors and JSON; no code is stored in it.

What a stage leaves of the network's structure is built again, as from a bundle; its weights, and
the encodings table, are read.
"""

import hashlib
from dataclasses import replace

import msgspec
import safetensors.torch
import torch
from torch import Tensor, fx

from edgedl.compress.digests import tensors_digest
from edgedl.compress.encodings.encodings import Encodings
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.quantize.corrections.layerwise import corrected_parameters, with_parameters
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.recipe.store.ingredients import Ingredients
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.manifest import HistoryEntry

RECORD = "stage"


class DamagedResultError(ValueError):
    """A file is not what was written."""


class StageRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a result besides its tensors.

    Attributes:
        subject: name of what was compressed.
        ingredients: what it depends on.
        seconds: that the stage took.
        entry: of the history.
        changes: "network", whose weights are the tensors then; "quantized", the graph with other
            numbers; "corrected", the graph with parameters of their own for some layers.
        encodings: the table as JSON, where the network is quantized.
        digest: of all that, and of the tensors.
    """

    subject: str
    ingredients: Ingredients
    seconds: float
    entry: HistoryEntry
    changes: str
    encodings: str | None
    digest: str


def write_state(
    stage: Stage, before: ModelState, after: ModelState, ingredients: Ingredients, seconds: float
) -> bytes | None:
    """Return a stage's result as the bytes of a safetensors file.

    None where that would not give the same state again: the stage rewrote the canonical graph, or
    marked the network for another kind of file. Such stages take seconds, and run again.
    """
    ways, tensors = _changed(before, after)
    if len(after.history) != len(before.history) + 1:
        return None
    table = after.quantized.encodings.to_json().decode() if after.quantized else None
    name, entry = after.subject.name, after.history[-1]
    for changes in ways:
        record = StageRecord(name, ingredients, seconds, entry, changes, table, "")
        record = msgspec.structs.replace(record, digest=_digest(record, tensors))
        if _alike(_apply(stage, before, record, tensors), after):
            metadata = {RECORD: msgspec.json.encode(record).decode()}
            return safetensors.torch.save(tensors, metadata)
    return None


def read_state(stage: Stage, before: ModelState, content: bytes) -> ModelState:
    """Return the state after a stage, from the state before it.

    Raises:
        DamagedResultError: the file is not what was written.
    """
    record = read_record(content)
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise DamagedResultError(f"not a safetensors file: {error}") from error
    if _digest(record, tensors) != record.digest:
        raise DamagedResultError("it is not what was written")
    return _apply(stage, before, record, tensors)


def _digest(record: StageRecord, tensors: dict[str, Tensor]) -> str:
    content = msgspec.json.encode(msgspec.structs.replace(record, digest=""), order="sorted")
    return hashlib.sha256(content + tensors_digest(tensors).encode()).hexdigest()


def read_record(content: bytes) -> StageRecord:
    """Return the record at the head of a file; its tensors may be missing from ``content``.

    Raises:
        DamagedResultError: there is none.
    """
    size = int.from_bytes(content[:8], "little")
    try:
        header = msgspec.json.decode(content[8 : 8 + size])
        return msgspec.json.decode(header["__metadata__"][RECORD], type=StageRecord)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise DamagedResultError(f"no record of a stage ({error})") from error


def _changed(before: ModelState, after: ModelState) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the ways in which the state may have changed, and its tensors by name."""
    module = after.subject.module
    if after.dynamic_bits != before.dynamic_bits or after.weights is not before.weights:
        return (), {}
    if after.quantized is not before.quantized and after.quantized is not None:
        tensors = _tensors(after.quantized.graph)
        same = _start(before).state_dict().keys() == tensors.keys()
        return (("quantized", "corrected") if same else ("corrected",)), tensors
    if module is not before.subject.module and isinstance(module, TracedNetwork):
        return ("network",), module.tensors()
    return (), {}


def _tensors(graph: fx.GraphModule) -> dict[str, Tensor]:
    return {n: t.detach().clone().contiguous() for n, t in graph.state_dict().items()}


def _apply(
    stage: Stage, before: ModelState, record: StageRecord, tensors: dict[str, Tensor]
) -> ModelState:
    return stage.recorded(_changed_as(stage, before, record, tensors), record.entry)


def _changed_as(
    stage: Stage, before: ModelState, record: StageRecord, tensors: dict[str, Tensor]
) -> ModelState:
    if record.changes == "network":
        subject = before.subject
        inputs, entries = subject.example_inputs(), (record.entry,)
        return before.with_network(
            rebuild(subject.module, inputs, entries, tensors, own=(type(stage),))
        )
    if record.changes == "corrected":
        graph = with_parameters(_start(before), corrected_parameters(tensors))
    else:
        graph = copy_graph(_start(before))
        graph.load_state_dict(tensors)
    if record.encodings is None:
        raise DamagedResultError("no encodings table")
    table = Encodings.from_json(record.encodings.encode())
    return replace(before, quantized=QuantizedNetwork(graph, table))


def _start(before: ModelState) -> fx.GraphModule:
    """Return the graph that a stage quantizes, or that it changes the numbers of."""
    return before.graph if before.quantized is None else before.quantized.graph


def _alike(found: ModelState, expected: ModelState) -> bool:
    """Say whether two states make the same files."""
    pairs = [(found.graph, expected.graph)]
    if found.quantized is not None and expected.quantized is not None:
        pairs.append((found.quantized.graph, expected.quantized.graph))
        if found.quantized.encodings.to_json() != expected.quantized.encodings.to_json():
            return False
    return all(str(a.graph) == str(b.graph) and _equal(a, b) for a, b in pairs)


def _equal(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
