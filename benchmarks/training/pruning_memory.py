"""Peak memory of deciding what to prune, over that of the network itself.

Run as ``python -m benchmarks.training.pruning_memory`` on Linux.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import ranked_widths
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.prune.importance import channel_scores, lamp, magnitudes
from edgedl.models.bert import Bert
from edgedl.models.resnet import ResNet

MULTIPLE = 16


def main() -> None:
    """Print the peak of each network's analysis."""
    torch.manual_seed(0)
    pictures = (torch.rand(2, 3, 64, 64),)
    ids = (torch.randint(0, 100, (2, 16)), torch.ones(2, 16, dtype=torch.int64))
    networks: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
        "ResNet-18": (lambda: ResNet(18), pictures),
        "ResNet-34": (lambda: ResNet(34), pictures),
        "MiniLM": (lambda: Bert(30522, 384, 6, 12, 1536), ids),
    }
    # torch.export loads its own code once.
    analyse(nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3)).eval(), pictures)
    for name, (make, inputs) in networks.items():
        network = make().eval()
        own = sum(t.numel() * t.element_size() for t in network.state_dict().values())
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _kilobytes("VmRSS")
        analyse(network, inputs)
        added = 1024 * (_kilobytes("VmHWM") - before)
        print(f"{name}: {own / 1e6:.0f} MB, analysis adds {added / 1e6:.0f} MB, {added / own:.2f}x")


def analyse(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Find the groups of a network, rank its channels, and choose half of its arithmetic."""
    axes = TensorAxes(export_graph(network, inputs))
    groups = channel_groups(axes)
    contributions = magnitudes(axes.graph, 2)
    scores = {g.axis: lamp(channel_scores(axes, g, contributions)) for g in groups}
    ranked_widths(groups, scores, MacCounter(axes).count, 0.5, MULTIPLE)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
