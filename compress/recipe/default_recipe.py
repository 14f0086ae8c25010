"""Which shipped recipe suits a network, ``--recipe default``, and what it is on the targets."""

from torch import fx

from edgedl.compress.graph.layers import find_operators
from edgedl.compress.graph.operators.attention import ATTENTION
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS
from edgedl.compress.graph.operators.table import is_recurrent, is_weighted, row_of
from edgedl.compress.graph.work import macs_of
from edgedl.compress.recipe.recipe import Recipe, check_order, fit, keep_float
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.target import Target
from edgedl.runtime.progress import Progress

# Of the multiply-adds: convolutions with less of them do not pay for the pairs around them.
LEAST_SHARE = 0.1


def default_recipe(graph: fx.GraphModule) -> tuple[str, str]:
    """Return the name of a shipped recipe and the reason for it.

    Recurrent layers lose their fused kernels when every step is quantized by itself, and small
    attention layers get slower in static int8 on both runtimes: those go dynamic. Convolutions
    beside recurrent layers, where they are a part of the arithmetic that counts, go static all the
    same. What is really fastest is measured afterwards, and recommended.
    """
    share = _share_beside_recurrent(graph)
    if share >= LEAST_SHARE:
        return "hybrid_w8c_a8", (
            f"{100 * share:.0f} % of the multiply-adds are in convolutions, the others in "
            "recurrent layers"
        )
    for kind, is_kind in (("recurrent", is_recurrent), ("attention", _attends)):
        if any(map(is_kind, graph.graph.nodes)):
            return "dynamic_w8_afp32", f"the network has {kind} layers"
    if any(map(is_weighted, graph.graph.nodes)):
        return "static_w8c_a8_rounded", "the network has convolutions or linear layers"
    return "float", "the network has no layer that int8 could speed up"


def _share_beside_recurrent(graph: fx.GraphModule) -> float:
    """Return the share of a recurrent network's multiply-accumulates in its convolutions."""
    work = {node: macs_of(graph, node) for node in graph.graph.nodes if row_of(node).product}
    work |= {node: macs_of(graph, node) for node in graph.graph.nodes if is_recurrent(node)}
    if not any(map(is_recurrent, work)):
        return 0.0
    convolved = sum(macs for node, macs in work.items() if row_of(node) in CONVOLUTIONS)
    return convolved / max(1, sum(work.values()))


def _attends(node: fx.Node) -> bool:
    return row_of(node) is ATTENTION or row_of(node).matrix_product


def fitting_recipe(
    graph: fx.GraphModule,
    recipe: Recipe | None,
    targets: tuple[Target, ...],
    float_layers: tuple[str, ...],
    progress: Progress,
) -> Recipe:
    """Return a recipe, or the one that suits the network, fit to the targets.

    Args:
        graph: canonical graph of the network.
        recipe: what to do; None takes the default, and says which and why.
        targets: whose kernels limit widths and bits.
        float_layers: to keep float.
        progress: of the job.

    Raises:
        BadInputError: the order of the stages is impossible, or what shall be kept float is not
            there.
    """
    if recipe is None:
        name, reason = default_recipe(graph)
        progress.step("recipe", f"{name}: {reason}")
        recipe = load_recipe(name)
    check_order(recipe)
    recipe = keep_float(recipe, float_layers)
    _check_float_layers(graph, recipe)
    return fit(recipe, targets)


def _check_float_layers(graph: fx.GraphModule, recipe: Recipe) -> None:
    """Refuse names of layers that are not there, before any stage has taken its time."""
    for stage in recipe.stages:
        if stage.renames_layers:
            return
        find_operators(graph, stage.float_layers)
