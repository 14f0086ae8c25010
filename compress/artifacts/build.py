"""Turn a model state into the files each runtime loads."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import msgspec
from torch import fx

from edgedl.compress.artifacts.tolerance import allowed_differences
from edgedl.compress.errors import ExportError, first_line
from edgedl.compress.export.exporter import FileSource, exporter_of
from edgedl.compress.export.outside import Outside
from edgedl.compress.graph.passes.fold.input_norm import InputNorm
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import REFERENCE, Target
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.errors import BackendUnavailableError, EdgedlError
from edgedl.runtime.precision import FLOAT32, Precision
from edgedl.runtime.progress import SILENT, Progress


@dataclass(frozen=True)
class BuiltArtifact:
    """A file, its description, its target, and the torch graph it must agree with."""

    artifact: Artifact
    content: bytes
    graph: fx.GraphModule
    target: Target


@dataclass(frozen=True)
class Refusal:
    """An artifact that could not be made, or must not be used, and why.

    Attributes:
        name: of the artifact.
        reason: what a converter, a runtime or a comparison says.
        missing: whether a library is not installed that it needs.
    """

    name: str
    reason: str
    missing: bool = False

    @classmethod
    def of(cls, name: str, error: Exception) -> "Refusal":
        """Return the refusal that an error means: whatever its class, the other files go on."""
        if isinstance(error, EdgedlError):
            return cls(name, str(error), isinstance(error, BackendUnavailableError))
        return cls(name, f"{type(error).__name__}: {first_line(error)}")


class ArtifactBuilder:
    """Builds the files of one model state; graphs and files that artifacts share are made once."""

    def __init__(
        self,
        state: ModelState,
        only: Collection[Precision] | None = None,
        reference: bool = True,
    ) -> None:
        """Take the example inputs from the calibration split.

        Args:
            state: what files are made of.
            only: precisions that the plan is restricted to; None for all.
            reference: whether the float32 file of the reference is in every plan.
        """
        self._source = FileSource(state)
        self._only = only
        self._reference = reference
        self._paths: dict[bytes, str] = {}

    def build(
        self, targets: tuple[Target, ...], progress: Progress = SILENT
    ) -> Iterator[BuiltArtifact | Refusal]:
        """Yield every artifact of the targets, the float32 file of the reference first.

        Each is a step. What cannot be made, for whatever reason, is yielded as a refusal.
        """
        for target, precision in self.plan(targets):
            name = target.artifact_name(precision)
            progress.step("export", name)
            try:
                yield self._build(target, precision)
            except Exception as error:
                # Converters raise anything; one file must not take the others along.
                yield Refusal.of(name, error)

    def plan(self, targets: tuple[Target, ...]) -> list[tuple[Target, Precision]]:
        """Return what ``build`` makes, in its order."""
        wanted = [
            (target, precision)
            for target in targets
            for precision in self._source.state.precisions
            if target.has(precision) and (self._only is None or precision in self._only)
        ]
        if not self._reference:
            return wanted
        # The reference is a target, too, which the targets may have with other settings.
        reference = next((t for t in targets if t.name == REFERENCE.name), REFERENCE)
        always = (reference, FLOAT32)
        return [always, *(pair for pair in wanted if pair != always)]

    def file(self, target: Target, precision: Precision) -> tuple[str, bytes]:
        """Return one file's name in the bundle and its content, not compared with anything.

        Raises:
            ExportError: it cannot be made.
        """
        exporter = exporter_of(target)
        graph = exporter.graph(self._source, target, precision)
        content, _ = self._write(target, precision, graph)
        return exporter.path(target, precision), content

    def _build(self, target: Target, precision: Precision) -> BuiltArtifact:
        if precision.name in target.refused:
            raise ExportError(target.refused[precision.name])
        exporter = exporter_of(target)
        graph = exporter.graph(self._source, target, precision)
        content, norms = self._write(target, precision, graph)
        # Two targets with the same file share it.
        if content not in self._paths:
            self._paths[content] = self._free(exporter.path(target, precision), target)
        path = self._paths[content]
        inputs, outputs = exporter.describe(content)
        verdict = exporter.check(content)
        if verdict is not None and not verdict.accepted:
            raise ExportError(verdict.describe())
        artifact = Artifact(
            target.artifact_name(precision),
            target.runtime,
            precision.name,
            path,
            _fed(inputs, norms),
            outputs,
            allowed_differences(self._source, graph, target, precision),
            check=None if verdict is None else verdict.describe(),
            profile=exporter.profile(inputs),
        )
        return BuiltArtifact(artifact, content, graph, target)

    def _free(self, path: str, target: Target) -> str:
        """Return a path that no other file has: with the target's name where one does."""
        if path not in self._paths.values():
            return path
        return str(Path(path).with_suffix(f".{target.name}{Path(path).suffix}"))

    @cached_property
    def _outside(self) -> tuple[FileSource, tuple[InputNorm | None, ...]]:
        """What files without normalisations are made of, and those of every input."""
        outside = Outside.of(self._source.state)
        return FileSource(outside.state), outside.norms

    def _write(
        self, target: Target, precision: Precision, graph: fx.GraphModule
    ) -> tuple[bytes, tuple[InputNorm | None, ...]]:
        """Return a file, and what its inputs are to be normalised with.

        Args:
            target: that the file is for.
            precision: of the file.
            graph: what the file must agree with.
        """
        exporter = exporter_of(target)
        if target.input_norms != "outside":
            return exporter.write(self._source, graph, target, precision), ()
        source, norms = self._outside
        graph = exporter.graph(source, target, precision)
        return exporter.write(source, graph, target, precision), norms


def _fed(
    inputs: tuple[TensorSpec, ...], norms: tuple[InputNorm | None, ...]
) -> tuple[TensorSpec, ...]:
    """Return a file's inputs with the means and deviations that they are normalised with."""
    return tuple(
        spec if norm is None else msgspec.structs.replace(spec, mean=norm.mean, std=norm.std)
        for spec, norm in zip_longest(inputs, norms)
    )
