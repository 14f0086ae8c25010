"""Size and accuracy of weight-only files beside those of static int8.

Run as ``python -m benchmarks.quantization.weight_only SUBJECT [TEST SAMPLES
[VARIANT...]]``; a variant is named by a part of its name, all are run without. The score is
computed in torch, on the integers that the files hold; the sizes are those of the files.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.quantization.corrections import sqnr
from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.errors import ExportError
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.task.task import Batch, Task
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

BATCH = 50
VARIANTS: dict[str, Sequence[Stage]] = {
    "float32": (),
    "static int8": (QuantizeStatic(), RoundWeights()),
    "int8 per channel": (QuantizeWeights(8, None),),
    "int4 per channel": (QuantizeWeights(4, None),),
    "int4 per channel, GPTQ": (QuantizeWeights(4, None, "gptq"),),
    "int4 groups of 32, min-max": (QuantizeWeights(4, 32, weight_observer="minmax"),),
    "int4 groups of 32": (QuantizeWeights(4, 32),),
    "int4 groups of 32, GPTQ": (QuantizeWeights(4, 32, "gptq"),),
    "int4 groups of 128": (QuantizeWeights(4, 128),),
    "int4 groups of 128, GPTQ": (QuantizeWeights(4, 128, "gptq"),),
}


def main(reference: str, samples: int = 2000, names: Sequence[str] = ()) -> None:
    """Print a line for every variant, on the first test samples."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    given = subject.task.batches("test", BATCH)
    batches = list(itertools.islice(given, -(-samples // BATCH)))
    exact, _ = _run(graph, subject.task, batches)
    lines = []
    for name, stages in VARIANTS.items():
        if names and not any(part in name for part in names):
            continue
        start = time.process_time()
        state = ModelState(subject, graph)
        for stage in stages:
            state = stage.apply(state)
        seconds = time.process_time() - start
        outputs, score = _run(_computing(state), subject.task, batches)
        noise = f"{sqnr(exact, outputs):.1f}" if stages else ""
        lines.append([name, f"{score:.2f}", noise, f"{seconds:.0f}", *_sizes(state)])
    print(f"{reference}, {len(exact)} test samples")
    columns = [subject.task.metric, "SQNR, dB", "CPU s", "ort, bytes", "tflite, bytes"]
    print(to_markdown(["variant", *columns], lines))


def _computing(state: ModelState) -> Callable[..., object]:
    """Return what computes as the smallest files of a state do."""
    if state.quantized is not None:
        return Simulation(state.quantized.graph, state.quantized.encodings)
    return state.graph if state.weights is None else state.weights.graph


def _sizes(state: ModelState) -> list[str]:
    """Return the bytes of the smallest files of a state, for ONNX Runtime and for TFLite.

    A file that cannot be made is "refused".
    """
    lowest = state.precisions[-1]
    precision = FLOAT32 if lowest.is_float else lowest
    builder = ArtifactBuilder(state)
    sizes = []
    for target in (ORT, TFLITE):
        try:
            sizes.append(f"{len(builder.file(target, precision)[1]):,}")
        except ExportError:
            sizes.append("refused")
    return sizes


@torch.no_grad()
def _run(run: Callable[..., object], task: Task, batches: Sequence[Batch]) -> tuple[Tensor, float]:
    """Return the first output for every sample, and the mean score in percent."""
    outputs, scores = [], []
    for batch in batches:
        found = as_tuple(run(*(torch.tensor(x) for x in batch.inputs)))
        outputs.append(found[0])
        scores.append(task.score([y.numpy() for y in found], batch.labels))
    return torch.cat(outputs), 100 * float(np.concatenate(scores).mean())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000, sys.argv[3:])
