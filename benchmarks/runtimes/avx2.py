"""What 16-bit saturation costs on x86 without VNNI: integer kernels emulated product by product.

Run as ``python -m benchmarks.runtimes.avx2 SUBJECT [SAMPLES]``. Such kernels add two
products of uint8 and int8 in 16 bits that saturate (PMADDUBSW). Convolutions and linear layers
without groups compute so in the emulation, on test samples; depthwise ones have kernels of their
own. The file is run by ONNX Runtime, too: on a processor without VNNI that is what is emulated.
"""

import sys
from collections.abc import Collection
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgedl.compress.artifacts.loaded_file import build_and_load
from edgedl.compress.encodings.affine import Affine
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.operators.convolution import Convolution
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.operator import first_input
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT, ORT_AVX2
from edgedl.compress.targets.target import MAX_WEIGHT_BITS
from edgedl.runtime.measure.device import run_context, saturates
from edgedl.runtime.precision import INT8
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

RECIPE = "static_w8c_a8_rounded"
BATCH = 20
SMALLEST, LARGEST = -(2**15), 2**15 - 1


class WithoutVnni(Simulation):
    """A network whose dense integer kernels add pairs of products in 16 bits."""

    saturated = 0
    pairs = 0

    def compute(
        self,
        node: fx.Node,
        values: dict[fx.Node, Any],
        active: Collection[fx.Node] | None = None,
    ) -> Any:
        """Compute one node; dense layers as such a CPU does."""
        source = first_input(node)
        affine = self.affine(source, node)
        dense = node in self.weighted and groups_of(node) == 1
        if not dense or affine is None or not isinstance(source, fx.Node):
            return super().compute(node, values, active)
        weight, bias = self.rounded(node)
        steps = self.scales[node]
        # Channels innermost, as the kernels hold them: they decide which products are neighbours.
        integers = (weight.movedim(1, -1).flatten(1) / steps[:, None]).round()
        columns, shape = _columns(node, _integers(values[source], affine), weight, affine)
        total = self._sums(columns, integers) - affine.zero_point * integers.sum(1)
        result = total * (steps * affine.scale) + (0 if bias is None else bias)
        return result.movedim(-1, 1).reshape(shape) if shape else result

    def _sums(self, columns: Tensor, weight: Tensor) -> Tensor:
        """Return [N, P, C_out] of columns [N, P, K] and a weight [C_out, K]."""
        if columns.shape[-1] % 2:
            columns, weight = F.pad(columns, (0, 1)), F.pad(weight, (0, 1))
        found = []
        for row in weight:
            pairs = columns[..., 0::2] * row[0::2] + columns[..., 1::2] * row[1::2]
            self.saturated += int(((pairs < SMALLEST) | (pairs > LARGEST)).sum())
            self.pairs += pairs.numel()
            found.append(pairs.clamp(SMALLEST, LARGEST).sum(-1))
        return torch.stack(found, -1)


def _integers(x: Tensor, affine: Affine) -> Tensor:
    return torch.clamp((x / affine.scale).round() + affine.zero_point, affine.qmin, affine.qmax)


def _columns(
    node: fx.Node, x: Tensor, weight: Tensor, affine: Affine
) -> tuple[Tensor, tuple[int, ...]]:
    """Return what each output reads, channels innermost as the kernels hold them."""
    if row_of(node) is LINEAR:
        return x, ()
    view = Convolution.of(node)
    stride, dilation = tuple(view.stride), tuple(view.dilation)
    padding = rows, columns = [int(width) for width in view.padding]
    padded = F.pad(x, (columns, columns, rows, rows), value=affine.zero_point)
    height, width = weight.shape[2:]
    read = F.unfold(padded, (height, width), dilation, 0, stride)
    read = read.view(len(x), x.shape[1], height * width, -1).permute(0, 3, 2, 1).flatten(2)
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            x.shape[2:], padding, dilation, (height, width), stride, strict=True
        )
    ]
    return read, (len(x), len(weight), *sizes)


def main(reference: str, samples: int) -> None:
    """Print how often pairs saturate, and the score, for weights of 8 and of 7 bits."""
    subject = find_subject(reference)
    graph = trace(subject.module, subject.example_inputs())
    lines = []
    for bits in (MAX_WEIGHT_BITS, ORT_AVX2.weight_bits):
        state = ModelState(subject, graph)
        for stage in load_recipe(RECIPE).stages:
            quantizes = isinstance(stage, QuantizeStatic)
            fit = msgspec.structs.replace(stage, weight_bits=bits) if quantizes else stage
            state = fit.apply(state)
        if state.quantized is None:
            raise TypeError(f"the recipe {RECIPE} quantizes nothing")
        table = state.quantized.encodings
        exact = Simulation(state.quantized.graph, table)
        emulated = WithoutVnni(state.quantized.graph, table)
        file = build_and_load(state, ORT, INT8)
        scores = [0.0, 0.0, 0.0]
        seen = 0
        for batch in subject.task.batches("test", BATCH):
            if seen >= samples:
                break
            seen += len(batch.labels)
            inputs = tuple(torch.tensor(x) for x in batch.inputs)
            answers = [[y.numpy() for y in network(*inputs)] for network in (exact, emulated)]
            for index, outputs in enumerate((*answers, file.run(batch.inputs))):
                scores[index] += float(subject.task.score(outputs, batch.labels).sum())
        share = 100 * emulated.saturated / emulated.pairs
        percents = [f"{100 * s / seen:.2f}" for s in scores]
        lines.append([str(bits), f"{share:.4f}", *percents])
    print(f"{reference}, {seen} test samples, {RECIPE}")
    here = "without" if saturates(run_context().isa) else "with"
    header = ["weight bits", "saturated pairs, %", "score with VNNI, %", "without, emulated, %",
              f"ONNX Runtime here, {here} VNNI, %"]  # fmt: skip
    print(to_markdown(header, lines))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500)
