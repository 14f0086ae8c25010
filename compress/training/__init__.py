"""The one training loop: reference models, fine-tuning and distillation on the same terms."""

from edgedl.compress.training.loop import train
from edgedl.compress.training.processes import Processes, torchrun_processes
from edgedl.compress.training.settings import (
    EpochRecord,
    TrainingBatches,
    TrainingDivergedError,
    TrainingSettings,
)

__all__ = [
    "EpochRecord",
    "Processes",
    "TrainingBatches",
    "TrainingDivergedError",
    "TrainingSettings",
    "torchrun_processes",
    "train",
]
