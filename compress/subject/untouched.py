"""Run a user's module and leave it as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgedl.runtime.errors import BadInputError

# What every module has; of these forward may change buffers and the mode.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have a module in evaluation mode.

    Afterwards its modes, its buffers, and the attributes that its classes have set are as they
    were, whatever forward has counted or remembered meanwhile.

    Raises:
        BadInputError: it is TorchScript, or a part of it is.
    """
    _refuse_scripted(module)
    held = [_Held(part) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part in held:
            part.restore()


def _refuse_scripted(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"its part '{name}'" if name else f"the module '{part.original_name}'"
            raise BadInputError(
                f"{what} is TorchScript, which torch.export does not take: pass the Python module "
                "that it was made of"
            )


class _Held:
    """What one module was before."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._mode = module, module.training
        self._buffers = dict(module._buffers)
        self._values = {name: _value(x) for name, x in self._buffers.items()}
        self._own = _own(module)
        # Lists and mappings that forward may add to.
        self._filled = {k: copy.copy(v) for k, v in self._own.items() if type(v) in (list, dict)}

    def restore(self) -> None:
        """Make the module what it was."""
        self._module.training = self._mode
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                value = self._values[name]
                if buffer is not None and value is not None and not torch.equal(buffer, value):
                    buffer.copy_(value)
        self._module._buffers.clear()
        self._module._buffers.update(self._buffers)
        held = vars(self._module)
        for name in set(_own(self._module)) - set(self._own):
            del held[name]
        held.update(self._own)
        for name, filled in self._filled.items():
            self._own[name].clear()
            _fill(self._own[name], filled)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: x for name, x in vars(module).items() if name not in _OF_EVERY_MODULE}


def _value(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


def _fill(emptied: Any, content: Any) -> None:
    if isinstance(emptied, list):
        emptied.extend(content)
    else:
        emptied.update(content)
