"""The files of a bundle: written, run, and kept where they may ship."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import safetensors.torch

from edgedl.compress.artifacts.build import ArtifactBuilder, BuiltArtifact, Refusal
from edgedl.compress.errors import ExportError
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.manifest_record import describe
from edgedl.compress.parity.between_runtimes import measure_between
from edgedl.compress.parity.check_files import check_files
from edgedl.compress.parity.computed import is_computed_here
from edgedl.compress.parity.expectations import layer_vectors
from edgedl.compress.parity.golden_samples import choose_golden
from edgedl.compress.parity.graph_outputs import GraphOutputs
from edgedl.compress.state import ModelState
from edgedl.compress.subject.check_subject import LOOKED_AT
from edgedl.compress.targets.target import Target
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle, write_manifest
from edgedl.runtime.bundle.certificates import RuntimeAgreement
from edgedl.runtime.bundle.golden import GOLDEN, encode_golden
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.first_load import mark_known
from edgedl.runtime.tensors import Floats

ENCODINGS = "encodings.json"
# Weights of the float network that stages have cut or trained; ``rebuild`` reads it.
NETWORK = "network.safetensors"


class BundleFiles:
    """Makes the files of a bundle, in one or several rounds, and keeps those that may ship.

    Attributes:
        accepted: files that are in the folder.
        refusals: of the others.
    """

    def __init__(self, state: ModelState, folder: Path) -> None:
        """Take the network that the bundle is of, and its folder."""
        self._state = state
        self._folder = folder
        self._outputs = GraphOutputs(state.subject.task)
        self._outputs.limit(state.graph)
        first = next(iter(state.subject.task.batches("calibration", LOOKED_AT)))
        self._calibrated = first.inputs
        self._batch, self._reach = choose_golden(state.graph, state.subject.task)
        self._golden: dict[str, tuple[Floats, ...]] = {}
        self.accepted: list[BuiltArtifact] = []
        self.refusals: list[Refusal] = []

    def make(self, builder: ArtifactBuilder, targets: tuple[Target, ...]) -> None:
        """Write the files of a builder, run them, and remove those that are refused."""
        built = []
        for item in builder.build(targets, self._state.progress):
            if isinstance(item, Refusal):
                self.refusals.append(item)
            else:
                built.append(item)
                (self._folder / item.artifact.path).write_bytes(item.content)
        inputs = self._batch.inputs
        self._golden |= {b.artifact.name: run_graph(b.graph, inputs) for b in built}
        self._write_golden()
        bundle = self._write_manifest([*self.accepted, *built])
        found = check_files(self._state, bundle, built, self._outputs, self._state.progress)
        self.refusals += found.refusals
        self.accepted += found.accepted
        kept = {item.artifact.path for item in self.accepted}
        for path in {item.artifact.path for item in built} - kept:
            (self._folder / path).unlink()

    def finish(self, refusals: Sequence[Refusal] = ()) -> Bundle:
        """Write what belongs to the files that are left, and return the bundle.

        Args:
            refusals: of files that were not tried.

        Raises:
            ExportError: no file is left.
            BackendUnavailableError: none is, and each lacks a library.
        """
        self.refusals += refusals
        self._refuse_nothing_good()
        kept = {item.artifact.name for item in self.accepted}
        self._golden = {name: y for name, y in self._golden.items() if name in kept}
        self._write_golden()
        self._write_tables()
        bundle = self._write_manifest(self.accepted)
        size_bytes = sum(record.size_bytes for record in bundle.manifest.files.values())
        vectors = layer_vectors(bundle, self.accepted, size_bytes)
        if vectors is not None:
            (self._folder / LAYER_VECTORS).write_bytes(vectors)
        between = measure_between(self._state, bundle, self.accepted, self._outputs.inputs)
        bundle = self._write_manifest(self.accepted, between)
        for item in self.accepted:
            if is_computed_here(item):
                mark_known(bundle, item.artifact, open_backend(item.artifact.backend))
        return bundle

    def _write_golden(self) -> None:
        (self._folder / GOLDEN).write_bytes(encode_golden(self._batch.inputs, self._golden))

    def _write_tables(self) -> None:
        """Write the table of encodings, and the weights of a changed network."""
        state = self._state
        if state.quantized is not None:
            (self._folder / ENCODINGS).write_bytes(state.quantized.encodings.to_json())
        if state.parent is not None and isinstance(state.subject.module, TracedNetwork):
            content = safetensors.torch.save(state.subject.module.tensors())
            (self._folder / NETWORK).write_bytes(content)

    def _write_manifest(
        self, files: Sequence[BuiltArtifact], between: tuple[RuntimeAgreement, ...] = ()
    ) -> Bundle:
        artifacts = [item.artifact for item in files]
        manifest = describe(self._state, artifacts, self._folder, self._calibrated)
        manifest = msgspec.structs.replace(manifest, between=between, golden_reach=self._reach)
        write_manifest(self._folder, manifest)
        return Bundle.open(self._folder)

    def _refuse_nothing_good(self) -> None:
        if self.accepted:
            return
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in self.refusals)
        if self.refusals and all(refusal.missing for refusal in self.refusals):
            raise BackendUnavailableError(f"no file could be made: {reasons}")
        raise ExportError(f"no file can be used: {reasons}")
