"""What torch.onnx does again in every export, done once or left out.

Two thirds of the time of a small network's export. A torch that has these functions elsewhere
exports the same files and takes that time.
"""

from functools import cache
from typing import Any

from torch.export import ExportedProgram


@cache
def export_faster() -> None:
    """Change torch's exporter, once in a process."""
    from torch.onnx._internal.exporter import _fx_passes, _registration

    library: Any = getattr(_registration, "onnxscript_apis", None)
    if hasattr(library, "get_torchlib_ops"):
        # It parses the source of every operator.
        library.get_torchlib_ops = cache(library.get_torchlib_ops)
    registry: Any = getattr(_registration, "ONNXRegistry", None)
    if hasattr(registry, "from_torchlib"):
        _keep_registry(registry)
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
        called = {n.target for n in program.graph.nodes if n.op == "call_function"}
        if called <= known:
            return program
        decomposed: ExportedProgram = decompose(program, registry)
        return decomposed

    passes.decompose_with_registry = decompose_with_registry
