"""What tells one object of the user's from another: its code and the values it holds."""

import copyreg
import enum
import functools
import hashlib
import inspect
import logging
import os
import pathlib
import site
import sys
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...), slice, range)
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, pathlib.PurePath)
# What torch itself keeps of every module; what a module computes with is read in other ways.
_OF_EVERY_MODULE = frozenset(nn.Module().__dict__) - {"training"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_LIBRARIES = tuple({*site.getsitepackages(), site.getusersitepackages()})


@dataclass(frozen=True)
class Description:
    """Text that differs where an object computes something else.

    Attributes:
        text: the same in another run only if nothing was ``unknown``.
        unknown: types of what could not be described, as code that was typed into a session.
    """

    text: str
    unknown: tuple[str, ...]


def describe(value: Any) -> Description:
    """Describe an object.

    Functions are described by their source, defaults and closures and by what they name in their
    module, objects by the source of their class and its bases and by their attributes, networks by
    their layers and tensors, what comes from a library by its name and the library's version.
    """
    writer = _Writer()
    text = writer.text(value)
    return Description(text, tuple(writer.unknown))


class _Writer:
    """Writes one description; what comes again in it is a number."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._numbers: dict[int, int] = {}
        # Kept alive, so that no other object takes its id.
        self._seen: list[Any] = []

    def text(self, value: Any) -> str:
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if isinstance(value, (*_PLAIN, *_NAMED, np.generic)):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._numbers:
            return f"#{self._numbers[id(value)]}"
        self._numbers[id(value)] = len(self._numbers)
        self._seen.append(value)
        try:
            return self._composite(value)
        except (OSError, TypeError, ValueError, AttributeError, RuntimeError):
            return self._unknown(value)

    def _composite(self, value: Any) -> str:
        if isinstance(value, Tensor | np.ndarray | torch.Generator | np.random.Generator):
            return self._numeric(value)
        if isinstance(value, set | frozenset):
            # They have no order of their own, and hold plain values.
            plain = all(isinstance(item, _PLAIN) for item in value)
            return f"set({', '.join(sorted(map(repr, value)))})" if plain else self._unknown(value)
        if isinstance(value, list | tuple):
            return f"{type(value).__name__}({', '.join(map(self.text, value))})"
        if isinstance(value, dict | types.MappingProxyType):
            return f"{{{', '.join(f'{self.text(k)}: {self.text(v)}' for k, v in value.items())}}}"
        if isinstance(value, nn.Module):
            return self._network(value)
        if isinstance(value, weakref.ref):
            return f"weakref {self.text(value())}"
        return self._code_and_state(value)

    def _numeric(self, value: Any) -> str:
        if isinstance(value, torch.Generator):
            return _digest(value.get_state())
        if isinstance(value, np.random.Generator):
            return self.text(value.bit_generator.state)
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufc":
                return f"{value.dtype} {self.text(value.tolist())}"
            return _digest(torch.from_numpy(np.ascontiguousarray(value)))
        return _digest(value)

    def _network(self, network: nn.Module) -> str:
        tensors = (*network.named_parameters(), *network.named_buffers())
        parts = [f"{name} {_digest(tensor)}" for name, tensor in tensors]
        graphs = {n: m for n, m in network.named_modules() if isinstance(m, fx.GraphModule)}
        parts += [f"{name} {module.graph}" for name, module in graphs.items()]
        inside = {id(child) for module in graphs.values() for child in module.modules()}
        for name, module in network.named_modules():
            if id(module) in inside:
                continue
            own = {k: v for k, v in vars(module).items() if k not in _OF_EVERY_MODULE}
            hooks = [list(getattr(module, hook).values()) for hook in _HOOKS]
            parts.append(f"{name} {self._class(type(module))} {self.text(own)} {self.text(hooks)}")
        return "\n".join(parts)

    def _code_and_state(self, value: Any) -> str:
        if isinstance(value, functools.partial):
            return f"partial {self.text((value.func, value.args, value.keywords))}"
        if inspect.ismethod(value):
            return f"method {self.text(value.__func__)} {self.text(value.__self__)}"
        if inspect.isfunction(value):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if inspect.isroutine(value):
            held = getattr(value, "__self__", None)
            return f"{value.__module__}.{value.__qualname__} {self.text(held)}"
        if isinstance(value, logging.Logger):
            return f"logger {value.name}"
        return f"{self._class(type(value))} {self.text(_state(value))}"

    def _function(self, function: types.FunctionType) -> str:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        inside = {name: cell.cell_contents for name, cell in cells}
        held = self.text((function.__defaults__, function.__kwdefaults__, inside))
        if (library := _library(function)) is not None:
            return f"{library} {held}"
        return f"{inspect.getsource(function)} {held} {self.text(self._named(function))}"

    def _class(self, kind: type) -> str:
        if (library := _library(kind)) is not None:
            return library
        parts = []
        for base in kind.__mro__:
            if (library := _library(base)) is not None:
                parts.append(library)
                continue
            held = [getattr(v, "__func__", getattr(v, "fget", v)) for v in vars(base).values()]
            named = [self._named(f) for f in held if inspect.isfunction(f)]
            parts.append(f"{inspect.getsource(base)} {self.text(named)}")
        return "\n".join(parts)

    def _module(self, module: types.ModuleType) -> str:
        if (library := _library(module)) is not None:
            return library
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()

    def _named(self, function: types.FunctionType) -> dict[str, Any]:
        """Return what a function names in its module: constants, helpers, other modules."""
        names = sorted({*_names(function.__code__)} & function.__globals__.keys())
        return {name: function.__globals__[name] for name in names}

    def _unknown(self, value: Any) -> str:
        self.unknown.append(f"{type(value).__module__}.{type(value).__qualname__}")
        return os.urandom(16).hex()


def _state(value: Any) -> Any:
    """Return the attributes of an object, or what pickle would keep of it."""
    if hasattr(value, "__dict__"):
        return vars(value)
    reduce = copyreg.dispatch_table.get(type(value))
    return (reduce(value) if reduce else value.__reduce_ex__(4))[1:3]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _library(code: Any) -> str | None:
    """Return the name and the version of what a library brings; None for the user's own."""
    is_module = isinstance(code, types.ModuleType)
    module = code.__name__ if is_module else getattr(code, "__module__", None) or ""
    top = module.partition(".")[0]
    known = sys.modules.get(top)
    # edgedl's own code has a digest in every key.
    if top not in (*sys.stdlib_module_names, "edgedl") or top == "__main__":
        path = getattr(known, "__file__", None) or ""
        if not path.startswith(_LIBRARIES):
            return None
    name = "" if is_module else f".{code.__qualname__}"
    return f"{module}{name} {getattr(known, '__version__', '')}"


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    kind = f"{tensor.dtype}{tuple(tensor.shape)}"
    return f"{kind} {hashlib.sha256(content).hexdigest()}"
