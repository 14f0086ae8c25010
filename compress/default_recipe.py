"""Which shipped recipe suits a network: what ``--recipe default`` stands for."""

from torch import fx

from edgedl.compress.graph.operators import ATTENTION, MATRIX_PRODUCTS, RECURRENT, WEIGHTED


def default_recipe(graph: fx.GraphModule) -> tuple[str, str]:
    """Return the name of a shipped recipe and the reason for it.

    Recurrent layers lose their fused kernels when every step is quantized by itself, and small
    attention layers get slower in static int8 on both runtimes: those go dynamic. What is really
    fastest is measured afterwards, and recommended.
    """
    targets = {node.target for node in graph.graph.nodes}
    for kind, operators in (("recurrent", RECURRENT), ("attention", ATTENTION | MATRIX_PRODUCTS)):
        if targets & operators:
            return "dynamic_w8_afp32", f"the network has {kind} layers"
    if targets & WEIGHTED.keys():
        return "static_w8c_a8_rounded", "the network is made of convolutions and linear layers"
    return "float", "the network has no layer that int8 could speed up"
