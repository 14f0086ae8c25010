"""Why layers are int8 or float: the damage of each, and its price on a runtime."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import Progress
from edgedl.tools.terminal.progress import steps

if TYPE_CHECKING:
    from edgedl.compress.latency.timing import Timings
    from edgedl.compress.quantize.search.sensitivity import LayerSensitivity, Sensitivity
    from edgedl.compress.state import ModelState

BATCH = 32
# Tracing, and the stages that most recipes have.
STEPS = 4
# What no node of a graph is called.
INT8, INT8_AGAIN = "all int8", "all int8 again"


@dataclass(frozen=True)
class FloatCost:
    """Latency of a file relative to the all-int8 one's: added milliseconds, and the ratio.

    Of the noise floor ``ms`` is the all-int8 file's own latency.
    """

    ms: float
    ci95_ms: tuple[float, float]
    ratio: float
    ci95_ratio: tuple[float, float]


@dataclass(frozen=True)
class ExplainedLayer:
    """A line of the table; a ratio in dB is None where there is no noise at all.

    Attributes:
        name: what ``--keep-float`` takes.
        module: path of the module it comes from.
        operator: for example "conv2d".
        macs_share: of the quantized layers' multiply-accumulates, 0 to 1.
        only_db: with this layer alone in int8. all_but_db: with all but it. kept_float_db: with it
            kept in float as a file would.
        only_points: change of the score, in points, with this layer alone in int8.
        only_loss: task loss with this layer alone in int8.
        float_cost: of keeping it in float, if it was timed.
    """

    name: str
    module: str
    operator: str
    macs_share: float
    only_db: float | None
    all_but_db: float | None
    kept_float_db: float | None
    only_points: float
    only_loss: float
    float_cost: FloatCost | None


@dataclass(frozen=True)
class Explanation:
    """What quantizing a subject does; scores are means, losses as in ``Damage``."""

    subject: str
    recipe: str
    samples: int
    metric: str
    float_score: float
    int8_score: float
    int8_loss: float
    int8_db: float | None
    sum_of_parts_db: float | None
    kept_float: tuple[str, ...]
    outcome: str | None
    runtime: str | None
    noise_floor: FloatCost | None
    layers: tuple[ExplainedLayer, ...]


def explain(
    reference: str,
    recipe: str,
    weights: Path | None,
    samples: int,
    runtime: str | None,
    top: int,
    seed: int,
    data: str | None = None,
) -> Explanation:
    """Quantize a subject by a recipe, then measure every layer.

    Args:
        reference: SUBJECT of the command line.
        recipe: name or file.
        weights: safetensors file, or None.
        samples: calibration samples.
        runtime: where to time the worst layers in float; None not to.
        top: how many of them.
        seed: of torch.
        data: of a module or an ONNX file, by name.

    Raises:
        BadInputError: unknown subject or recipe, or the recipe does not quantize statically.
    """
    import torch

    from edgedl.compress.quantize.refinement import quantized_by
    from edgedl.compress.quantize.search.sensitivity import measure_sensitivity

    torch.manual_seed(seed)
    with steps("explain", STEPS + math.ceil(samples / BATCH) + (runtime is not None)) as progress:
        state, name = _quantize(reference, recipe, weights, data, progress)
        network, task = quantized_by(state, "explain"), state.subject.task
        found = measure_sensitivity(state.graph, network, task, samples, BATCH, progress)
        timings = None
        if runtime is not None:
            progress.step(f"time {top} layers on {runtime}")
            timings = _time(state, found, runtime, top)
    return _explanation(state, name, found, runtime, timings)


def _quantize(
    reference: str, recipe: str, weights: Path | None, data: str | None, progress: Progress
) -> "tuple[ModelState, str]":
    """Return the quantized state, and the name of the recipe that was taken."""
    from edgedl.compress.graph.trace import trace
    from edgedl.compress.recipe.default_recipe import default_recipe, fitting_recipe
    from edgedl.compress.recipe.recipe import DEFAULT
    from edgedl.compress.recipe.recipe_file import load_recipe
    from edgedl.compress.state import ModelState
    from edgedl.compress.subject.check_subject import check_subject
    from edgedl.compress.subject.steps import by_steps
    from edgedl.compress.targets.target import TARGETS
    from edgedl.tools.jobs.subjects import find_subject

    given = None if recipe == DEFAULT else load_recipe(recipe)
    subject = by_steps(find_subject(reference, weights, data))
    for note in check_subject(subject):
        progress.note(note)
    progress.step("trace")
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    name = default_recipe(graph)[0] if given is None else recipe
    state = ModelState(subject, graph)
    fit = fitting_recipe(graph, given or load_recipe(name), TARGETS, (), progress)
    for stage in fit.stages:
        progress.step(type(stage).__name__)
        state = stage.apply(state)
    if state.quantized is None:
        raise BadInputError(
            f"the recipe {name} fixes no ranges before the network runs, so there is nothing to "
            "explain: choose one with quantize_static, such as --recipe static_w8c_a8"
        )
    return state, name


def _time(state: "ModelState", found: "Sensitivity", runtime: str, top: int) -> "Timings":
    from edgedl.compress.quantize.search.layer_cost import ALL_INT8, PrecisionTimer
    from edgedl.compress.targets.target import load_target

    nodes = [s.layer.node for s in found.layers if s.layer.node is not None][:top]
    files = {node.name: frozenset({node.name}) for node in nodes}
    return PrecisionTimer(state, load_target(runtime)).time(
        {INT8: ALL_INT8, INT8_AGAIN: ALL_INT8, **files}
    )


def _explanation(
    state: "ModelState",
    recipe: str,
    found: "Sensitivity",
    runtime: str | None,
    timings: "Timings | None",
) -> Explanation:
    total_macs = max(1, sum(s.layer.macs for s in found.layers))
    parts = sum(s.only.noise for s in found.layers)
    outcomes = [h.settings["outcome"] for h in state.history if "outcome" in h.settings]
    return Explanation(
        subject=state.subject.name,
        recipe=recipe,
        samples=found.samples,
        metric=state.subject.task.metric,
        float_score=found.exact.score,
        int8_score=found.int8.score,
        int8_loss=found.int8.loss,
        int8_db=_finite(found.int8.sqnr_db),
        sum_of_parts_db=_finite(replace(found.int8, noise=parts).sqnr_db),
        kept_float=_kept_float(state),
        outcome=str(outcomes[-1]) if outcomes else None,
        runtime=runtime,
        noise_floor=None if timings is None else _cost(timings, INT8_AGAIN, added=False),
        layers=tuple(_explained(s, found.exact.score, total_macs, timings) for s in found.layers),
    )


def _kept_float(state: "ModelState") -> tuple[str, ...]:
    """Return the layers that the recipe keeps in float, by the names a user gives them."""
    from edgedl.compress.encodings.quantized_layers import quantized_layers

    if state.quantized is None:
        return ()
    encodings = state.quantized.encodings
    layers = quantized_layers(state.graph, replace(encodings, float_nodes=frozenset()))
    kept = [x for x in layers if x.node is not None and x.node.name in encodings.float_nodes]
    return tuple(layer.name for layer in kept)


def _explained(
    found: "LayerSensitivity", float_score: float, total_macs: int, timings: "Timings | None"
) -> ExplainedLayer:
    layer, cost = found.layer, None
    if timings is not None and layer.node is not None and layer.node.name in timings.latency_ns:
        cost = _cost(timings, layer.node.name)
    return ExplainedLayer(
        name=layer.name,
        module=layer.module,
        operator=layer.operator,
        macs_share=layer.macs / total_macs,
        only_db=_finite(found.only.sqnr_db),
        all_but_db=_finite(found.all_but.sqnr_db),
        kept_float_db=None if found.kept_float is None else _finite(found.kept_float.sqnr_db),
        only_points=100 * (found.only.score - float_score),
        only_loss=found.only.loss,
        float_cost=cost,
    )


def _cost(timings: "Timings", name: str, added: bool = True) -> FloatCost:
    """Return a file's cost over the all-int8 file's; its interval is that of the ratio."""
    ratio, int8_ms = timings.ratio(INT8, name), timings.median_ms(INT8).value
    ms, lo, hi = (int8_ms * (r - added) for r in (ratio.value, ratio.lo, ratio.hi))
    return FloatCost(ms, (lo, hi), ratio.value, (ratio.lo, ratio.hi))


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
