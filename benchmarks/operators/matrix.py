"""Which operators each runtime computes in integers: found by compressing small networks."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.operators.cases import OperatorCase
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.graph.trace import TraceError
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import TARGETS, load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import (
    DYNAMIC_INT8,
    FP8,
    INT4_WEIGHTS,
    INT8,
    INT8_INT16,
    INT8_WEIGHTS,
    PRECISIONS,
)
from edgedl.runtime.progress import Progress
from edgedl.runtime.task.task import ArrayTask, Samples

SAMPLES = 32
# Every file that edgedl makes for a target, in the order of its table's columns.
COLUMNS = {
    target.name: tuple(f"{target.name}-{precision}" for precision in target.precisions)
    for target in TARGETS
}
ARTIFACTS = tuple(name for columns in COLUMNS.values() for name in columns)
# By the precision that each is for.
RECIPES = {
    INT8: Recipe("int8", (QuantizeStatic(SAMPLES, SAMPLES, "minmax"),)),
    DYNAMIC_INT8: Recipe("dynamic int8", (QuantizeDynamic(),)),
    INT8_INT16: Recipe("int16", (QuantizeStatic(SAMPLES, SAMPLES, "minmax", activation_bits=16),)),
    FP8: Recipe("fp8", (QuantizeFp8(SAMPLES, SAMPLES),)),
    INT8_WEIGHTS: Recipe("int8 weights", (QuantizeWeights(8, None),)),
    INT4_WEIGHTS: Recipe("int4 weights", (QuantizeWeights(4, 32),)),
}
# The other files, which are made of every network.
FLOATS = tuple(precision for precision in PRECISIONS.values() if precision.is_float)

Outcome = Literal["runs", "partly", "accepted", "refused"]


@dataclass(frozen=True)
class Cell:
    """What became of one operator in one file.

    Attributes:
        outcome: "runs": in the file's precision; "partly": the file runs, some of it in float;
            "accepted": the runtime would take it, and has not run it; "refused": there is no file.
        detail: the operators in float, or the reason.
    """

    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """One operator: artifact name, such as "ort-int8", -> what became of it."""

    family: str
    operator: str
    cells: dict[str, Cell]


def support_matrix(
    cases: Sequence[OperatorCase], progress: Progress, bundles: Path | None = None
) -> list[Row]:
    """Compress every case for every target and return what its files compute.

    Every file is run by its runtime and held against the torch graph, as in ``edgedl compress``;
    TensorRT's are checked by its parser and builder where those are installed.

    Args:
        cases: operators.
        progress: each is a step.
        bundles: an empty folder that keeps the bundles, one per operator and precision; None keeps
            none.
    """
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            progress.step(case.name)
            folder = Path(scratch) if bundles is None else bundles
            rows.append(Row(case.family, case.name, _cells(case, folder / folder_name(case))))
    return rows


def folder_name(case: OperatorCase) -> str:
    """Return the name of an operator as a file system takes it."""
    return re.sub(r"\W+", "_", case.name).strip("_")


def _cells(case: OperatorCase, place: Path) -> dict[str, Cell]:
    subject = Subject(case.name, _module(case), _task(case))
    found: dict[str, Cell] = {}
    for precision, recipe in RECIPES.items():
        only = (precision, *FLOATS) if precision is INT8 else (precision,)
        targets = tuple(t for t in TARGETS if any(p.name in t.precisions for p in only))
        folder = place / precision.name
        folder.mkdir(parents=True)
        try:
            found |= _read(compress(subject, recipe, targets, folder, only=only))
        except TraceError as error:
            shutil.rmtree(folder)
            return dict.fromkeys(ARTIFACTS, Cell("refused", str(error)))
        except BadInputError as error:
            # There is nothing that the recipe could quantize.
            shutil.rmtree(folder)
            refused = Cell("refused", str(error))
            found |= {target.artifact_name(precision): refused for target in targets}
    return {name: found[name] for name in ARTIFACTS}


def _read(made: CompressedModel) -> dict[str, Cell]:
    cells = {refusal.name: Cell("refused", refusal.reason) for refusal in made.refusals}
    for artifact in made.bundle.manifest.artifacts:
        cells[artifact.name] = _cell(made.bundle, artifact)
    return cells


def _cell(bundle: Bundle, artifact: Artifact) -> Cell:
    if artifact.check is not None:
        return Cell("accepted")
    if not artifact.kind.computes_in_integers:
        return Cell("runs")
    exporter = exporter_of(load_target(artifact.backend))
    found = exporter.float_operators(bundle.read(artifact.path))
    return Cell("partly", ", ".join(found)) if found else Cell("runs")


def _module(case: OperatorCase) -> torch.nn.Module:
    torch.manual_seed(1)
    return case.make().eval()


def _task(case: OperatorCase) -> ArrayTask:
    def split() -> Samples:
        inputs = tuple(x.numpy() for x in case.inputs(SAMPLES))
        return Samples(inputs, np.zeros(SAMPLES, np.int64))

    return ArrayTask(
        name="noise",
        splits={"calibration": split, "test": split},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
