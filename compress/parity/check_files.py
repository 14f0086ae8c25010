"""Run every file that was made: which may ship, with which findings, and which are refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from edgedl.compress.artifacts.build import BuiltArtifact, Refusal
from edgedl.compress.errors import ExportError
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.graph.lengths import shortened
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity.acceptance import (
    NotAcceptedError,
    accept,
    computes_its_graph,
    destroyed,
)
from edgedl.compress.parity.blame import SAMPLES as BLAME_SAMPLES
from edgedl.compress.parity.blame import Blame, find_blame
from edgedl.compress.parity.computed import compute, is_computed_here
from edgedl.compress.parity.graph_outputs import FIRST_SAMPLES_OF_FLOATS, GraphOutputs
from edgedl.compress.parity.outputs import (
    compare_graphs,
    compare_output,
    measure_parity,
)
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.certificates import Finding, OutputParity
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, told
from edgedl.runtime.loaded_model import run_file
from edgedl.runtime.progress import Progress
from edgedl.runtime.selfcheck.trial import Trial, try_files


@dataclass(frozen=True)
class CheckedFiles:
    """Files that may ship, and the others with the reason."""

    accepted: list[BuiltArtifact]
    refusals: list[Refusal]


def check_files(
    state: ModelState,
    bundle: Bundle,
    built: list[BuiltArtifact],
    outputs: GraphOutputs,
    progress: Progress,
) -> CheckedFiles:
    """Run every file of a bundle and compare it with its torch graph and the float network.

    First in a process of its own, which a crash or a file without end does not survive. A file made
    of one that is refused is refused, too.

    Args:
        state: what they were made of.
        bundle: holds the files and the golden vectors.
        built: the files.
        outputs: of the test samples.
        progress: each file is a step.
    """
    accepted: list[BuiltArtifact] = []
    refusals: list[Refusal] = []
    runnable = [b.artifact for b in built if is_computed_here(b)]
    trials = try_files(bundle, runnable)
    for item in built:
        name = item.artifact.name
        progress.step("check", name)
        try:
            trial = trials.get(name)
            if trial is not None and trial.failure:
                raise ExportError(f"{name} {trial.failure}")
            _refuse_child_of_refused(item, refusals)
            accepted.append(replace(item, artifact=_checked(state, trial, item, outputs)))
        except Exception as error:
            # Runtimes raise anything; one file must not take the others along.
            refusals.append(Refusal.of(name, error))
    return CheckedFiles(accepted, refusals)


def _refuse_child_of_refused(built: BuiltArtifact, refusals: list[Refusal]) -> None:
    parent = exporter_of(built.target).made_from(built.artifact.kind)
    name = None if parent is None else built.target.artifact_name(parent)
    for refusal in refusals:
        if refusal.name == name:
            raise ExportError(f"it is made from {name}, which was refused: {refusal.reason}")


def _checked(
    state: ModelState, trial: Trial | None, built: BuiltArtifact, outputs: GraphOutputs
) -> Artifact:
    """Return a file's record with its parity and findings.

    Args:
        state: what it was made of.
        trial: of it; None where its runtime is not here.
        built: the file.
        outputs: of the test samples.

    Raises:
        BadInputError: the runtime refuses the file.
        ExportError: the file breaks the rule of acceptance.
    """
    artifact = built.artifact
    try:
        parity = measure_parity(state, built, outputs)
        check_other_sizes(state, built)
        if trial is not None and trial.refused is not None:
            # It is not met here, so it is a limit of the trial's that is met there.
            raise told(trial.refused)
        artifact = accept(artifact, parity, None if trial is None else trial.golden)
    except NotAcceptedError as error:
        blame = _blame(state, built, error.output, outputs)
        raise ExportError(f"{error}; {blame.cure}") from error
    except BackendUnavailableError as error:
        # Nothing computes the file here: its torch graph shows what the precision costs.
        said = [artifact.check] if artifact.check else []
        check = "; ".join([*said, f"not run: {error}"])
        compared = compare_graphs(state.graph, built.graph, outputs.joined(FIRST_SAMPLES_OF_FLOATS))
        found = _findings(state, built, compared, outputs)
        return msgspec.structs.replace(artifact, check=check, findings=found)
    found = _findings(state, built, parity.outputs, outputs)
    return msgspec.structs.replace(artifact, findings=found)


def _findings(
    state: ModelState,
    built: BuiltArtifact,
    compared: Sequence[OutputParity],
    outputs: GraphOutputs,
) -> tuple[Finding, ...]:
    found = []
    for index, output in enumerate(compared):
        for part, evidence in destroyed(output):
            blame = _blame(state, built, index, outputs)
            part_name = part.name if part else "all of it"
            name = built.artifact.outputs[index].name
            found.append(Finding(name, part_name, evidence, blame.layer, blame.cure))
    return tuple(found)


def _blame(state: ModelState, built: BuiltArtifact, output: int, outputs: GraphOutputs) -> Blame:
    """Return what is to blame for an output of a file, as far as its torch graph shows it."""
    if state.quantized is None or built.artifact.kind.source != "encodings":
        return Blame("")
    return find_blame(state.quantized, built.graph, output, outputs.joined(BLAME_SAMPLES))


def check_other_sizes(state: ModelState, built: BuiltArtifact) -> None:
    """Run a file whose inputs have a free axis besides the batch at another size of it.

    Raises:
        ExportError: it does not compute there what the torch graph computes.
    """
    artifact = built.artifact
    free = tuple(i for i, d in enumerate(artifact.inputs[0].shape) if d is None)
    if not any(free):
        return
    inputs = tuple(x.numpy() for x in shortened(state.subject.example_inputs(), free))
    found = run_file(compute(built).session, artifact, inputs)
    expected, reference = run_graph(built.graph, inputs), run_graph(state.graph, inputs)
    for spec, a, b, exact, allowed in zip(
        artifact.outputs, found, expected, reference, artifact.golden_tolerances, strict=True
    ):
        worst = float(np.abs(a - b).max()) if a.shape == b.shape else np.inf
        if worst <= allowed:
            continue
        same_shape = np.isfinite(worst)
        if not same_shape or not computes_its_graph(
            compare_output(spec.name, a, b, exact), artifact.kind
        ):
            raise ExportError(
                f"{artifact.name} differs from the torch graph by {worst:.3g} on inputs of the "
                f"sizes {[list(x.shape) for x in inputs]}, allowed is {allowed:.3g}"
            )
