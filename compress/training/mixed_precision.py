"""Mixed precision where it pays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgedl.compress.device import CPU
from edgedl.compress.subject.outputs import as_tuple

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device = CPU) -> bool:
    """Return whether a device has instructions for bfloat16, as far as torch knows.

    Without them torch emulates it: a training step of a 3x3 convolution took 6 times as long as in
    float32 (torch 2.13, AVX2).
    """
    if device.type != "cpu":
        if not torch.amp.is_autocast_available(device.type):
            return False
        asked = getattr(torch.get_device_module(device), "is_bf16_supported", None)
        return asked is not None and bool(asked(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)


def no_bfloat16(device: torch.device = CPU) -> str:
    """Return what to say where mixed precision is asked for and a device has no bfloat16."""
    name = "this processor" if device.type == "cpu" else str(device)
    return f"{name} has no bfloat16, where mixed precision would be slower: in float32"


class InBfloat16(nn.Module):
    """A network that computes in bfloat16 where that is safe, and answers in float32."""

    def __init__(self, network: nn.Module) -> None:
        """Take a network whose weights stay as they are."""
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return every output as float32, for float32 inputs."""
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            outputs = as_tuple(self.network(*inputs))
        return tuple(y.float() for y in outputs)


@contextmanager
def float32_where_bfloat16_is_slow(module: nn.Module) -> Iterator[None]:
    """Keep depthwise convolutions that are strided or wider than 3x3 out of autocast.

    Their bfloat16 backward kernels on CPU took 4 to 20 times as long as the float32 ones (torch
    2.13; channels last, 96 to 336 channels); depthwise 3x3 of stride 1 is faster in bfloat16.
    """
    changed = [m for m in module.modules() if isinstance(m, nn.Conv2d) and _is_slow(m)]
    for convolution in changed:
        convolution.forward = _in_float32(convolution.forward)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for convolution in changed:
            del convolution.forward


def _is_slow(convolution: nn.Conv2d) -> bool:
    depthwise = convolution.groups == convolution.in_channels > 1
    return depthwise and (max(convolution.stride) > 1 or max(convolution.kernel_size) > 3)


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward_in_float32(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return forward_in_float32
