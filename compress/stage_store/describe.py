"""What tells one object of the user's from another: its code and the values it holds."""

import functools
import hashlib
import inspect
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

# Objects inside objects are described this deep.
DEPTH = 6
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def describe(value: Any, depth: int = DEPTH) -> str:
    """Return a text that differs where the object computes something else.

    Functions are described by their source, defaults and closures, objects by the source of their
    class and their attributes, networks by their layers and tensors. What cannot be described, as
    code that was typed into a session, is never the same: its text is drawn anew.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth == 0:
        return _never_alike()
    inner = functools.partial(describe, depth=depth - 1)
    if isinstance(value, Tensor | np.ndarray):
        return _digest(torch.as_tensor(value))
    if isinstance(value, list | tuple | set | frozenset):
        parts = [inner(item) for item in value]
        ordered = sorted(parts) if isinstance(value, set | frozenset) else parts
        return f"{type(value).__name__}({', '.join(ordered)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{inner(k)}: {inner(v)}' for k, v in value.items())}}}"
    if isinstance(value, nn.Module):
        return _network(value, depth)
    code, held = _code_and_held(value)
    return f"{_source(code)} {inner(held)}"


def _network(network: nn.Module, depth: int) -> str:
    parts = [f"{name} {_digest(tensor)}" for name, tensor in network.state_dict().items()]
    graphs = {n: m for n, m in network.named_modules() if isinstance(m, fx.GraphModule)}
    parts += [f"{name} {module.graph}" for name, module in graphs.items()]
    inside = {id(child) for module in graphs.values() for child in module.modules()}
    for name, module in network.named_modules():
        if id(module) in inside:
            continue
        # What torch itself keeps of a module begins with "_", but for its mode.
        own = {k: v for k, v in vars(module).items() if k[0] != "_"}
        parts.append(f"{name} {_source(type(module))} {describe(own, depth - 1)}")
    return "\n".join(parts)


def _code_and_held(value: Any) -> tuple[Any, Any]:
    """Return whose source describes an object, and the values that the object holds."""
    if isinstance(value, functools.partial):
        return functools.partial, (value.func, value.args, value.keywords)
    if inspect.ismethod(value):
        return value.__func__, value.__self__
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return value, (value.__defaults__, value.__kwdefaults__, cells)
    if inspect.isroutine(value) or isinstance(value, type):
        return value, None
    return type(value), getattr(value, "__dict__", _never_alike())


def _source(code: Any) -> str:
    """Return the source of a function or class; of torch's and numpy's, whose version counts."""
    module = getattr(code, "__module__", None) or ""
    if module.partition(".")[0] in ("torch", "numpy", "builtins", "functools"):
        return f"{module}.{code.__qualname__}"
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return _never_alike()


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    kind = f"{tensor.dtype}{tuple(tensor.shape)}"
    return f"{kind} {hashlib.sha256(content).hexdigest()}"


def _never_alike() -> str:
    return os.urandom(16).hex()
