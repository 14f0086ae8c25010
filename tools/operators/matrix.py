"""Which operators each runtime computes in integers: found by compressing small networks."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from edgedl.compress.graph.trace import TraceError
from edgedl.compress.pack import CompressedModel, compress
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe import Recipe
from edgedl.compress.subject import Subject
from edgedl.compress.target import TARGETS
from edgedl.runtime.bundle import Bundle
from edgedl.runtime.manifest import Artifact
from edgedl.runtime.task import ArrayTask, Samples
from edgedl.tools.operators.cases import OperatorCase
from edgedl.tools.operators.float_operators import float_operators

SAMPLES = 32
# Every file that edgedl makes, in the order of a table's columns.
ARTIFACTS = tuple(
    f"{target}-{precision}"
    for target in TARGETS
    for precision in ("int8", "dynamic_int8", "float16", "float32")
)
RECIPE = Recipe("every precision", (QuantizeStatic(SAMPLES, SAMPLES, "minmax"), QuantizeDynamic()))

Outcome = Literal["runs", "partly", "refused"]


@dataclass(frozen=True)
class Cell:
    """What became of one operator in one file.

    Attributes:
        outcome: "runs": in the file's precision; "partly": the file runs, some of it in float;
            "refused": there is no file.
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


def support_matrix(cases: Sequence[OperatorCase], report: Callable[[str], None]) -> list[Row]:
    """Compress every case for every target and return what its files compute.

    Every file is run by its runtime and held against the torch graph, as in ``edgedl compress``;
    TensorRT's are checked by its parser and builder where those are installed.
    """
    rows = []
    for case in cases:
        report(case.name)
        rows.append(Row(case.family, case.name, _cells(case)))
    return rows


def _cells(case: OperatorCase) -> dict[str, Cell]:
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(case.name, _module(case), _task(case))
        try:
            made = compress(subject, RECIPE, TARGETS, Path(folder))
        except TraceError as error:
            return dict.fromkeys(ARTIFACTS, Cell("refused", str(error)))
        found = _read(made)
    return {name: found[name] for name in ARTIFACTS}


def _read(made: CompressedModel) -> dict[str, Cell]:
    cells = {refusal.name: Cell("refused", refusal.reason) for refusal in made.refusals}
    for artifact in made.bundle.manifest.artifacts:
        cells[artifact.name] = _cell(made.bundle, artifact)
    return cells


def _cell(bundle: Bundle, artifact: Artifact) -> Cell:
    if artifact.precision in ("float32", "float16") or artifact.backend == "tensorrt":
        return Cell("runs")
    found = float_operators(bundle.read(artifact.path), artifact.backend)
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
