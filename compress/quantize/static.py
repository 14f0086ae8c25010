"""The stage that quantizes weights and activations to int8 after training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta
from torch import fx

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.clipping import WeightObserver
from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.encodings.observers import PERCENTILE, Observer
from edgedl.compress.encodings.placement import results_read_as_floats
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.layers import find_operators
from edgedl.compress.graph.operators.table import is_quantizable, moves_values, row_of
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.targets.target import MAX_WEIGHT_BITS, TARGETS, Target, weight_bits
from edgedl.runtime.errors import BadInputError


class QuantizeStatic(Stage, frozen=True, tag="quantize_static"):
    """Post-training static quantization: int8 per-channel weights, int8 or int16 activations.

    Attributes:
        samples: calibration samples; memory does not grow with them.
        batch_size: samples per forward pass.
        observer: how ranges are chosen: "mse", "minmax", "moving_average", "percentile", "entropy".
        keep_float: layers that stay float32: module paths, with all that is inside, or wildcards.
        percentile: for that observer, the share of values inside the range, in percent.
        weight_observer: how the range of a weight's channel is chosen, "minmax" or "mse".
        scope: what computes in int8: "every_operator" that can, or "products" alone:
            convolutions, linear layers and matrix products, whose results stay float where nothing
            else reads their integers and the runtime can give floats. The latter is for
            transformers, whose sums have outliers that leave no integers for the rest.
        weight_bits: of the weights' integers; below 8 they are stored in 8 all the same. 7 is for
            CPUs without VNNI.
        activation_bits: of the activations' integers. With 16 there are files for TFLite alone,
            and operators that it has no 16-bit kernel for stay float32.
    """

    works_on: ClassVar[Phase] = Phase.FLOAT
    yields: ClassVar[Phase] = Phase.QUANTIZED

    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 32
    observer: Observer = "mse"
    keep_float: tuple[str, ...] = ()
    percentile: Annotated[float, Meta(gt=50, le=100)] = PERCENTILE
    weight_observer: WeightObserver = "minmax"
    weight_bits: Annotated[int, Meta(ge=2, le=MAX_WEIGHT_BITS)] = MAX_WEIGHT_BITS
    scope: Literal["every_operator", "products"] = "every_operator"
    activation_bits: Literal[8, 16] = 8

    @property
    def quantizes_to(self) -> QuantizedPrecision:
        """Precision of the network."""
        return "int8" if self.activation_bits == 8 else "int8_int16"

    @property
    def calibration_samples(self) -> int:
        """Most samples that ranges are found with."""
        return self.samples

    def fit(
        self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()
    ) -> "QuantizeStatic":
        """Take no more bits than the kernels of every target can add up; the table is one for all.

        Only TFLite has kernels for 16-bit activations, and they do not saturate.
        """
        if self.activation_bits == 16:
            return self
        bits = min(self.weight_bits, weight_bits((*targets, *judged_on)))
        return msgspec.structs.replace(self, weight_bits=bits)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Fill the encodings table from the calibration split.

        Raises:
            BadInputError: calibration data is missing or not finite, or a name in ``keep_float``
                matches no layer.
        """
        precision = self.quantizes_to
        kept = kept_float(state.graph, self.keep_float, precision)
        if self.scope == "products":
            operators = [n for n in state.graph.graph.nodes if is_quantizable(n)]
            kept |= {n.name for n in operators if not row_of(n).product and not moves_values(n)}
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        table = calibrate(
            state.graph,
            batches,
            self.observer,
            self.percentile,
            self.weight_observer,
            self.weight_bits,
            precision,
            kept,
        )
        encodings = table
        damaged = tuple(sorted(table.float_nodes - kept))
        if damaged:
            state.progress.note(f"float, as integers would lose small values: {', '.join(damaged)}")
        if self.scope == "products":
            unrounded = results_read_as_floats(state.graph.graph, encodings)
            encodings = replace(encodings, float_results=frozenset(n.name for n in unrounded))
        return replace(state, quantized=QuantizedNetwork(state.graph, encodings)), (
            {"kept_float": damaged} if damaged else {}
        )


def kept_float(
    graph: fx.GraphModule, patterns: Sequence[str], precision: QuantizedPrecision
) -> frozenset[str]:
    """Return the names of the operators that stay float: those named, and those without a kernel.

    Raises:
        BadInputError: a pattern matches no layer, or none is left.
    """
    able = [n for n in graph.graph.nodes if is_quantizable(n)]
    computing = {n for n in able if not moves_values(n)}
    kept = find_operators(graph, patterns) & computing
    if kept and kept == computing:
        raise BadInputError("keep_float leaves no layer to quantize: use the recipe float")
    if precision == "int8_int16":
        kernels = [target.int16 for target in TARGETS if precision in target.precisions]
        kept |= {n for n in able if not any(k.has(n) for k in kernels)}
    return frozenset(n.name for n in kept)
