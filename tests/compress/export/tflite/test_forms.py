"""What LiteRT's converter gets wrong by itself, and must not in our files."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile
from small_networks import Net, Quantized, noise
from torch import nn

from edgedl.compress.export.tflite.forms import for_litert
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.edit import get_tensor, set_tensor
from edgedl.compress.graph.trace import trace


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2},
        {"scale_factor": (1.5, 2.0)},
        {"size": (5, 9)},
        {"size": (9, 11), "align_corners": True},
    ],
)
def test_a_bicubic_resize_is_two_products(options: dict[str, Any]) -> None:
    x = noise(2, 3, 6, 8)
    graph = trace(Net(lambda n, x: F.interpolate(x, mode="bicubic", **options)), (x,))
    written = for_litert(graph)
    called = [str(n.target) for n in written.graph.nodes if n.op == "call_function"]
    assert not any("bicubic" in target for target in called)
    torch.testing.assert_close(written(x), graph(x), atol=1e-5, rtol=1e-5)
    found = TFLiteFile(to_tflite(graph, (x,), quantized=False)).run((x.numpy(),))[0]
    np.testing.assert_allclose(found, graph(x).numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_bicubic_resize_between_integer_layers_stays_float() -> None:
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.b(F.interpolate(n.a(x).relu(), scale_factor=2, mode="bicubic")),
        a=nn.Conv2d(3, 8, 3, padding=1),
        b=nn.Conv2d(8, 3, 3, padding=1),
    )
    quantized = Quantized(net, (noise(2, 3, 6, 6),))
    wanted = quantized.outputs(quantized.graph)[0]
    found = TFLiteFile(quantized.tflite).run(quantized.arrays)[0]
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 25


def test_stored_tensors_stand_in_the_order_of_their_axes() -> None:
    graph = trace(Net(lambda n, x: n.fc(x), fc=nn.Linear(4, 3)), (noise(2, 4),))
    view = noise(4, 3).T
    set_tensor(graph, "fc.weight", view)
    stored = get_tensor(graph, "fc.weight")
    assert stored.is_contiguous()
    assert torch.equal(stored, view)


@pytest.mark.slow
def test_matrices_stored_the_other_way_are_read_right() -> None:
    torch.manual_seed(0)

    def forward(net: Any, x: Any) -> Any:
        x = torch.addmm(net.b, x, net.one).relu()
        x = (x @ net.two).tanh()
        return torch.einsum("ni,io->no", x, net.three)

    net = Net(
        forward,
        one=nn.Parameter(torch.randn(6, 32)),
        b=nn.Parameter(torch.randn(32)),
        two=nn.Parameter(torch.randn(32, 48)),
        three=nn.Parameter(torch.randn(48, 5)),
    )
    x = noise(4, 6)
    graph = trace(net, (x,))
    assert all(p.is_contiguous() for p in (*graph.parameters(), *graph.buffers()))
    for _ in range(2):
        found = TFLiteFile(to_tflite(graph, (x,), quantized=False)).run((x.numpy(),))[0]
        np.testing.assert_allclose(found, net(x).detach().numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("function", [torch.mul, torch.add], ids=["mul", "add"])
def test_an_operator_that_reads_a_reshaped_tensor_twice(function: Any) -> None:
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.b(function(*2 * (n.a(x).flatten(1),))),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Linear(64, 3),
    )
    quantized = Quantized(net, (noise(16, 3, 6, 6),))
    found = TFLiteFile(quantized.tflite).run((quantized.arrays[0],))[0]
    wanted = quantized.outputs(quantized.graph)[0]
    assert np.square(found - wanted).mean() < 0.01 * np.square(wanted).mean()
