"""What torch.onnx does again in every export, done once or left out.

Two thirds of the time of a small network's export. A torch that has these functions elsewhere
exports the same files and takes that time.
"""

from functools import cache
from typing import Any

import torch
from torch.export import ExportedProgram


@cache
def export_faster() -> None:
    """Change torch's exporter, once in a process."""
    from onnxscript import rewriter
    from torch.onnx._internal.exporter import _fx_passes, _registration

    library: Any = getattr(_registration, "onnxscript_apis", None)
    if hasattr(library, "get_torchlib_ops"):
        # It parses the source of every operator.
        library.get_torchlib_ops = cache(library.get_torchlib_ops)
    registry: Any = getattr(_registration, "ONNXRegistry", None)
    if hasattr(registry, "from_torchlib"):
        _keep_registry(registry)
    _try_fitting_rules(rewriter.RewriteRule)
    passes: Any = _fx_passes
    if hasattr(passes, "decompose_with_registry"):
        _decompose_where_needed(passes)


def _keep_registry(registry: Any) -> None:
    """Let the table of operators be made once; each export adds its own to a copy."""
    make = cache(registry.from_torchlib)

    def from_torchlib(*args: Any, **options: Any) -> Any:
        kept = make(*args, **options)
        copied = registry()
        copied.__dict__ |= kept.__dict__
        copied.functions = {target: list(rows) for target, rows in kept.functions.items()}
        return copied

    # It is called on the class and on objects alike.
    registry.from_torchlib = staticmethod(from_torchlib)


def _decompose_where_needed(passes: Any) -> None:
    """Leave out the decomposition, which traces the graph anew, where ONNX has every operator."""
    decompose = passes.decompose_with_registry

    def decompose_with_registry(program: ExportedProgram, registry: Any) -> ExportedProgram:
        known = {rows[0].fx_target for rows in registry.functions.values()}
        _write_casts(program)
        called = {n.target for n in program.graph.nodes if n.op == "call_function"}
        if called <= known:
            return program
        decomposed: ExportedProgram = decompose(program, registry)
        return decomposed

    passes.decompose_with_registry = decompose_with_registry


def _write_casts(program: ExportedProgram) -> None:
    """Write casts as the decomposition does, in place, and drop what checks them."""
    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default and not node.users:
            program.graph.erase_node(node)
        elif node.target is aten.to.dtype and len(node.args) == 2 and not node.kwargs:
            x, dtype = node.args
            node.target = aten._to_copy.default
            node.args, node.kwargs = (x,), {"dtype": dtype}


def _try_fitting_rules(rule_type: Any) -> None:
    """Let a rewriting rule be tried on the operators alone that its pattern ends in."""
    try_rewrite = rule_type.try_rewrite

    def try_where_it_fits(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        ends = getattr(getattr(rule, "_target_pattern", None), "output_nodes", ())
        kind = ends[0].op_identifier() if ends else None
        if kind is not None and kind != node.op_identifier():
            return None
        return try_rewrite(rule, model, graph, node, **options)

    rule_type.try_rewrite = try_where_it_fits
