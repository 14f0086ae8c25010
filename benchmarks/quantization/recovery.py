"""What training and corrections win back, on a network as it is and on a hostile copy of it.

Run as ``python -m benchmarks.quantization.recovery SUBJECT [VARIANT...] [--uneven]
[--weight-bits B] [--seeds N]``; variants are ptq, rounded, learned_rounding, blocks and equalized
(corrections without training), labels, distilled, offsets (distilled, zero points learned too),
fixed (distilled, ranges as calibrated), rounded_labels, rounded_distilled and rounded_both (trained
behind rounding), all unless some are named. Those that train are repeated with every seed. Scored
in torch on the whole test split, on the graph that the ONNX Runtime file is made of. ``--uneven``
first makes the network hard to quantize without changing what it computes: the channels between two
layers are scaled by 2^-4 to 2^4 and back, so that one step per tensor fits few of them.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import msgspec
import torch
from torch import fx

from edgedl.compress.encodings.emit import emit
from edgedl.compress.graph.edit import copy_graph, get_tensor, set_tensor
from edgedl.compress.graph.operators.convolution import CONV2D
from edgedl.compress.graph.operators.operator import Weighted, aten
from edgedl.compress.graph.operators.table import groups_of, row_of
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.reconstruct_blocks import ReconstructBlocks
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.compress.subject.score import score_module
from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.task.task import Scores
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

LARGEST_EXPONENT = 4
RELUS = (aten.relu.default, aten.relu_.default)
VARIANTS: dict[str, Sequence[Stage]] = {
    "ptq": (),
    "rounded": (RoundWeights(),),
    "learned_rounding": (LearnRounding(),),
    "blocks": (ReconstructBlocks(),),
    "equalized": (),
    "labels": (TrainQuantized(),),
    "distilled": (TrainQuantized(distil=1.0),),
    "offsets": (TrainQuantized(distil=1.0, learn="scales_and_offsets"),),
    "fixed": (TrainQuantized(distil=1.0, learn="nothing"),),
    "rounded_labels": (RoundWeights(), TrainQuantized()),
    "rounded_distilled": (RoundWeights(), TrainQuantized(distil=1.0)),
    "rounded_both": (RoundWeights(), TrainQuantized(distil=0.9)),
}


def main() -> None:
    """Print a line for every variant: its score, and the drop from the float network's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("subject")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    unknown = [name for name in options.variants if name not in VARIANTS]
    if unknown:
        parser.error(f"there is no variant {unknown[0]}: {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    subject = find_subject(options.subject)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    exact = score_module(graph, subject.task)
    state = ModelState(subject, with_uneven_channels(graph) if options.uneven else graph)
    said = f"{', uneven channels' if options.uneven else ''}, weights of {options.weight_bits} bits"
    print(f"{options.subject}{said}: {len(exact)} test samples")
    lines: list[list[str]] = []

    def add(name: str, found: Scores, seconds: float = 0.0) -> None:
        lines.append(_line(name, exact, found, seconds))
        print(" | ".join(lines[-1]), file=sys.stderr, flush=True)

    add("float32", score_module(state.graph, subject.task))
    for name in options.variants or VARIANTS:
        for seed in range(options.seeds):
            stages = _stages(name, options.weight_bits, seed)
            if stages is None:
                continue
            began = time.process_time()
            quantized = state
            for stage in stages:
                quantized = stage.apply(quantized)
            taken = time.process_time() - began
            add(_label(name, seed, options.seeds, quantized), _score(quantized), taken)
    print(to_markdown(["variant", "score, %", "drop, points [95 %]", "CPU s"], lines))


def _stages(name: str, bits: int, seed: int) -> list[Stage] | None:
    """Return the stages of a variant; None where nothing is drawn and it was measured before."""
    drawn = [isinstance(stage, TrainQuantized) for stage in VARIANTS[name]]
    if seed and not any(drawn):
        return None
    stages = [
        msgspec.structs.replace(stage, seed=seed) if isinstance(stage, TrainQuantized) else stage
        for stage in VARIANTS[name]
    ]
    before = [Equalize()] if name == "equalized" else []
    return [*before, QuantizeStatic(weight_bits=bits), *stages]


def _label(name: str, seed: int, seeds: int, state: ModelState) -> str:
    """Return the variant, its seed if there are several, and which epoch was kept."""
    kept = state.history[-1].settings.get("kept_epoch")
    words = [name, *([f"seed {seed}"] if seeds > 1 and kept is not None else [])]
    return ", ".join([*words, *([] if kept is None else [f"epoch {kept}"])])


def _score(state: ModelState) -> Scores:
    if state.quantized is None:
        raise ValueError("nothing was quantized")
    return score_module(
        emit(state.quantized.graph, state.quantized.encodings, REFERENCE), state.subject.task
    )


def _line(name: str, exact: Scores, found: Scores, seconds: float) -> list[str]:
    drop = paired_drop(exact, found)
    interval = f"{100 * drop.value:+.2f} [{100 * drop.lo:+.2f}, {100 * drop.hi:+.2f}]"
    return [name, f"{100 * found.mean():.2f}", interval, f"{seconds:.0f}"]


def with_uneven_channels(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy whose first pair of layers with a ReLU between scales its channels apart.

    The factors are powers of two and ReLU is positively homogeneous: the outputs do not change.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias
    correction", 2019, section 4.1, run backwards.

    Raises:
        BadInputError: no two convolutions follow each other that way.
    """
    copy = copy_graph(graph)
    for first in copy.graph.nodes:
        relu = next(iter(first.users), None)
        second = next(iter(relu.users), None) if relu is not None else None
        if row_of(first) is CONV2D and relu is not None and relu.target in RELUS:
            alone = len(first.users) == len(relu.users) == 1
            if alone and second is not None and _joins_channels(second):
                _scale_channels(copy, first, second)
                return copy
    raise BadInputError("the network has no convolution, ReLU and convolution in a row")


def _joins_channels(node: fx.Node) -> bool:
    """Say whether every output of a convolution reads every channel: it has no groups."""
    return row_of(node) is CONV2D and groups_of(node) == 1


def _scale_channels(graph: fx.GraphModule, first: fx.Node, second: fx.Node) -> None:
    layer = Weighted.of(first)
    paths = [layer.weight_path, *([layer.bias_path] if layer.bias_path is not None else [])]
    channels = get_tensor(graph, layer.weight_path).shape[row_of(first).weight_axis]
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(-LARGEST_EXPONENT, LARGEST_EXPONENT, channels).round()
    factors = 2.0 ** spread[torch.randperm(channels, generator=generator)]
    for path in paths:
        tensor = get_tensor(graph, path)
        set_tensor(graph, path, tensor * factors.view(-1, *[1] * (tensor.ndim - 1)))
    source = Weighted.of(second).weight_path
    set_tensor(graph, source, get_tensor(graph, source) / factors.view(1, -1, 1, 1))


if __name__ == "__main__":
    main()
