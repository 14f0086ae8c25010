"""The device that a network is trained on: found, moved to, and left again."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from edgedl.compress.errors import first_line
from edgedl.runtime.errors import BadInputError

CPU = torch.device("cpu")


def find_device(name: str) -> torch.device:
    """Return the device of a name such as "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        BadInputError: torch knows no such device, or it is not here.

    >>> find_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInputError(
            f"there is no device '{name}': torch knows cpu, cuda, cuda:1, mps and xpu, for example"
        ) from error
    check_device(device)
    return device


def check_device(device: torch.device) -> None:
    """Compute a number there.

    Raises:
        BadInputError: it cannot be done, and why.
    """
    if device.type == "cpu":
        return
    try:
        torch.ones((), device=device).item()
    except Exception as error:
        # Each kind of device that is absent raises another class.
        reason = first_line(error).split(". ")[0]
        raise BadInputError(
            f"{device} is not available here: {reason}; take a device that is, such as cpu"
        ) from error


def device_of(module: nn.Module) -> torch.device:
    """Return where the first parameter or buffer of a module is; the CPU if it has none."""
    return next((t.device for t in chain(module.parameters(), module.buffers())), CPU)


def to_device(value: Any, device: torch.device) -> Any:
    """Return tensors, in tuples and lists or not, on a device; anything else as it is."""
    if isinstance(value, Tensor):
        # Labels of a regression may be float64, which Apple's GPUs do not have.
        narrow = device.type == "mps" and value.dtype == torch.float64
        return (value.float() if narrow else value).to(device)
    if isinstance(value, tuple | list):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


@contextmanager
def on_device(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Have modules on a device for as long as the block runs, and on the CPU after it.

    What they share, they share there and after it; traced graphs make their tensors there.

    Args:
        device: where to; nothing happens for the CPU.
        modules: on the CPU. All that are to be trained or asked for answers together.

    Raises:
        BadInputError: the device is not here.
    """
    if device.type == "cpu":
        yield
        return
    check_device(device)
    try:
        _move(modules, device)
        yield
    finally:
        _move(modules, CPU)


def _move(modules: tuple[nn.Module, ...], device: torch.device) -> None:
    # With the tensor itself, whose id another could get when it is gone.
    moved: dict[int, tuple[Tensor, Tensor]] = {}

    def once(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            moved[id(tensor)] = tensor, tensor.to(device)
        return moved[id(tensor)][1]

    for module in modules:
        # As ``Module.to`` does, but a buffer of two modules stays one buffer.
        module._apply(once)
        for part in module.modules():
            if isinstance(part, fx.GraphModule):
                _make_tensors_on(part, device)


def _make_tensors_on(graph: fx.GraphModule, device: torch.device) -> None:
    """Change the device that operators of a traced graph name, as ``zeros`` does."""

    def change(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    for node in graph.graph.nodes:
        node.args = map_aggregate(node.args, change)
        node.kwargs = map_aggregate(node.kwargs, change)
    graph.recompile()
