"""Small networks that each hold a few operators, and what quantizing them gives."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.observers import Observer
from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.export.ort.exporter import protect_float_layers
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import Target, weight_bits
from edgedl.runtime.task.task import ArrayTask, Samples


class Net(nn.Module):
    """A forward function of (layers, x) over named layers."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


class TwoInputs(Net):
    """The same with two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return self._forward(self, x, y)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(norm: nn.Module) -> nn.Module:
    """Give a batch norm statistics and weights that are not trivial."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        norm.running_mean.uniform_(-0.5, 0.5, generator=generator)
        norm.running_var.uniform_(0.3, 2.0, generator=generator)
        if norm.affine:
            norm.weight.uniform_(0.5, 2.0, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return norm


class Quantized:
    """A network with its table, and the files made from it (each made once)."""

    def __init__(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        observer: Observer = "minmax",
        bits: int = 8,
    ) -> None:
        self.module, self.inputs = module.eval(), inputs
        self.graph = trace(module, inputs)
        self.encodings = calibrate(self.graph, [inputs], observer, weight_bits=bits)

    def emitted(self, target: Target) -> fx.GraphModule:
        return emit(self.graph, self.encodings, target)

    def outputs(self, graph: fx.GraphModule) -> tuple[np.ndarray, ...]:
        return run_graph(graph, self.arrays)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(x.numpy() for x in self.inputs)

    @property
    def steps(self) -> list[float]:
        """Return the quantization step of every output."""
        ranges = self.encodings.activations
        return [affine_for(ranges[n.name], ORT).scale for n in output_nodes(self.graph)]

    @cached_property
    def onnx(self) -> bytes:
        return protect_float_layers(to_onnx(self.emitted(ORT), self.inputs))

    @cached_property
    def tensorrt(self) -> bytes:
        return to_onnx(self.emitted(TENSORRT), self.inputs)

    @cached_property
    def tflite(self) -> bytes:
        islands = bool(float_islands(self.graph.graph, self.encodings))
        return to_tflite(self.emitted(TFLITE), self.inputs, True, islands)


def _operators() -> nn.Module:
    """Build what a CNN has and the network in tiny.py lacks."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first_norm((x - net.mean) / net.std)
        x = torch.clamp(net.norm(net.grouped(x)), -1.0, 3.0)
        x = F.relu(net.shared(x))
        x = F.relu6(net.shared(x) + x)
        x = F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2, 1), 1).flatten(1)
        return net.fc(F.relu(net.norm_1d(net.hidden(x))))

    return Net(
        forward,
        mean=nn.Buffer(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)),
        std=nn.Buffer(torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)),
        first_norm=trained(nn.BatchNorm2d(3)),
        grouped=nn.Conv2d(3, 6, 3, groups=3, bias=False),
        norm=trained(nn.BatchNorm2d(6)),
        shared=nn.Conv2d(6, 6, 3, padding=1),
        hidden=nn.Linear(6, 8),
        norm_1d=trained(nn.BatchNorm1d(8)),
        fc=nn.Linear(8, 4),
    )


def _two_heads() -> nn.Module:
    """Build a picture and a sequence as inputs, and two outputs of different shapes."""

    def forward(net: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(net.a(x) + net.b(x))
        y = F.max_pool1d(F.relu(net.norm(net.first(y))), 2)
        y = F.relu(net.second(y)).flatten(1)
        return net.fc(y) + net.head(h.mean((2, 3))), net.map(h)

    return TwoInputs(
        forward,
        a=nn.Conv2d(3, 4, 3, padding=1),
        b=nn.Conv2d(3, 4, 1),
        head=nn.Linear(4, 3),
        map=nn.Conv2d(4, 2, 3),
        first=nn.Conv1d(2, 5, 3, padding=1),
        norm=trained(nn.BatchNorm1d(5)),
        second=nn.Conv1d(5, 4, 3, stride=2),
        fc=nn.Linear(12, 3),
    )


def _joined() -> nn.Module:
    """Build concats of a ReLU branch and a signed branch, one feeding the other."""

    def forward(net: Any, x: Tensor) -> Tensor:
        first = torch.cat([F.relu(net.a(x)), net.b(x)], 1)
        second = torch.cat([first, net.c(first)], 1)
        return net.d(second).flatten(1)

    return Net(
        forward,
        a=nn.Conv2d(3, 3, 1),
        b=nn.Conv2d(3, 2, 3, padding=1),
        c=nn.Conv2d(5, 2, 1),
        d=nn.Conv2d(7, 3, 6),
    )


def _gated() -> nn.Module:
    """Build an inverted residual with SiLU and squeeze-and-excitation, and a tanh at the end."""

    def forward(net: Any, x: Tensor) -> Tensor:
        h = F.silu(net.norm(net.expand(x)))
        h = F.silu(net.depthwise(h))
        gate = torch.sigmoid(net.excite(F.silu(net.squeeze(h.mean((2, 3), keepdim=True)))))
        h = x + net.project(h * gate)
        return net.fc(torch.tanh(net.hidden(h.mean((2, 3)))))

    return Net(
        forward,
        expand=nn.Conv2d(4, 8, 1, bias=False),
        norm=trained(nn.BatchNorm2d(8)),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        squeeze=nn.Conv2d(8, 4, 1),
        excite=nn.Conv2d(4, 8, 1),
        project=nn.Conv2d(8, 4, 1),
        hidden=nn.Linear(4, 6),
        fc=nn.Linear(6, 3),
    )


def _attention() -> nn.Module:
    """Build one head of attention, written with matmul and softmax."""

    def forward(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.q(x), net.k(x), net.v(x)
        weights = torch.softmax(q @ k.transpose(1, 2), -1)
        return net.fc((x + weights @ v).flatten(1))

    return Net(
        forward, q=nn.Linear(6, 6), k=nn.Linear(6, 6), v=nn.Linear(6, 6), fc=nn.Linear(30, 3)
    )


SAMPLES = 48
_MAKERS = {
    "operators": (_operators, ((3, 10, 10),)),
    "two_heads": (_two_heads, ((3, 6, 6), (2, 16))),
    "joined": (_joined, ((3, 6, 6),)),
    "gated": (_gated, ((4, 6, 6),)),
    "attention": (_attention, ((5, 6),)),
}
NETWORKS = tuple(_MAKERS)


@cache
def network(name: str) -> Quantized:
    """Return one of ``NETWORKS``, calibrated on what it is then tested with.

    Its weights are as small as ONNX Runtime's kernels on this processor need.
    """
    make, shapes = _MAKERS[name]
    torch.manual_seed(1)
    inputs = tuple(noise(SAMPLES, *s, seed=i) for i, s in enumerate(shapes))
    return Quantized(make(), inputs, bits=weight_bits((ORT,)))


def noise_task(
    *shapes: tuple[int, ...], classes: tuple[str, ...] = (), count: int = 40
) -> ArrayTask:
    """Return a task over float32 noise, with labels 0."""

    def split(seed: int) -> Samples:
        inputs = tuple(noise(SAMPLES, *s, seed=seed + i).numpy() for i, s in enumerate(shapes))
        return Samples(inputs, np.zeros(SAMPLES, np.int64))

    return ArrayTask(
        name="noise",
        splits={"calibration": lambda: split(10), "test": lambda: split(20)},
        metric="top1" if classes else "output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
        classes=classes,
    )
