"""Train a reference model without labels, before it is trained with them."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.device import device_of
from edgedl.compress.training import Processes, TrainingSettings, train
from edgedl.models.bert import MaskedWords, TextClassifier
from edgedl.models.data.dataset import Dataset, TextDataset
from edgedl.models.data.datasets import load_split
from edgedl.models.dbn import DeepBeliefNetwork, pretrain
from edgedl.models.reference.text_batches import NOT_TOLD, MaskedBatches, training_tokens
from edgedl.runtime.progress import Progress

CHECKPOINT = "pretraining.pt"


@dataclass(frozen=True)
class Pretraining:
    """What a pre-training is given.

    Attributes:
        dataset: whose training split is taken.
        settings: its schedule; a deep belief network takes the epochs and the seed.
        folder: of the run.
        processes: who trains.
        progress: says every epoch.
    """

    dataset: Dataset
    settings: TrainingSettings
    folder: Path
    processes: Processes
    progress: Progress

    def run(self, module: nn.Module) -> float:
        """Train a network in place; return the seconds that it took.

        Raises:
            TypeError: there is no pre-training of such a network on such data.
        """
        if isinstance(module, DeepBeliefNetwork):
            return self._layers(module)
        if isinstance(module, TextClassifier) and isinstance(self.dataset, TextDataset):
            return self._encoder(module, self.dataset)
        raise TypeError(f"there is no pre-training of {type(module).__name__}")

    def _layers(self, module: DeepBeliefNetwork) -> float:
        start = time.perf_counter()
        images = load_split(self.dataset.name, "train").images
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
        generator = torch.Generator().manual_seed(self.settings.seed)
        pretrain(module, pixels, self.settings.epochs, generator, self.progress)
        return time.perf_counter() - start

    def _encoder(self, module: TextClassifier, dataset: TextDataset) -> float:
        """Let the encoder tell hidden words; it goes on where its own checkpoint ends."""
        self.progress.note("pre-training on hidden words")
        ids, _ = training_tokens(dataset)

        def loss(outputs: Tensor, words: Tensor) -> Tensor:
            return F.cross_entropy(outputs.flatten(0, 1), words.flatten(), ignore_index=NOT_TOLD)

        records = train(
            MaskedWords(module).to(device_of(module)),
            MaskedBatches(ids, module.words.num_embeddings, self.settings.batch_size),
            loss,
            self.settings,
            self.folder / CHECKPOINT,
            processes=self.processes,
            progress=self.progress,
        )
        return sum(record.seconds for record in records)
