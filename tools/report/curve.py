"""The learning curve of a training run, as a PNG."""

import io
from typing import TYPE_CHECKING

from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import install_line

try:
    import matplotlib
except ImportError as error:
    # Said when a training run starts, not when it ends.
    raise BackendUnavailableError.of(
        error, f"matplotlib is missing, it draws the learning curve: {install_line('report')}"
    ) from error

matplotlib.use("agg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from edgedl.compress.training import EpochRecord


def draw_learning_curve(title: str, epochs: "list[EpochRecord]") -> bytes:
    """Return a PNG of the mean training loss and the learning rate over the epochs."""
    figure, axes = plt.subplots(figsize=(7.0, 4.0))
    numbers = [record.epoch for record in epochs]
    axes.plot(numbers, [r.mean_loss for r in epochs], color="#1f5fa8", marker=".", label="loss")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    rate = axes.twinx()
    rate.plot(numbers, [r.learning_rate for r in epochs], color="#999999", linewidth=1)
    rate.set_ylabel("learning rate at the end of the epoch", color="#777777")
    rate.set_ylim(bottom=0)
    axes.set_title(title)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)
    return out.getvalue()
