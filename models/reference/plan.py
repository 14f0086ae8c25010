"""How a reference model is trained, as data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingPlan:
    """The schedule; see ``compress.training.TrainingSettings`` for the terms.

    Attributes:
        epochs, batch_size, max_learning_rate, weight_decay, label_smoothing, optimizer,
            mixed_precision, max_gradient_norm: as in ``TrainingSettings``.
        shift: largest random shift of a picture in pixels.
        flip: mirror a picture left to right half of the time.
        cutout: side of the random square that is erased from a picture, in pixels.
        rotation: deviation of the random rotation of sensor windows, in radians.
        hidden_words: share of the words of a text that are hidden.
        pretraining_epochs: of training without labels: of a deep belief network layer by layer, of
            a text encoder on hidden words.
    """

    epochs: int
    batch_size: int = 256
    max_learning_rate: float = 0.3
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 0
    flip: bool = False
    cutout: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    mixed_precision: bool = False
    max_gradient_norm: float | None = None
    rotation: float = 0.0
    hidden_words: float = 0.0
    pretraining_epochs: int = 0
