"""A small language model with fresh weights, and what it writes."""

import numpy as np
import torch
from torch import nn

from edgedl.compress.subject.subject import Subject
from edgedl.models.gpt import Gpt
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.task.scores import BITS, bits_per_character
from edgedl.runtime.task.task import ArrayTask, Samples

CONTEXT = 16
ALPHABET = "\ufffd abcdefghi"


def make_writer() -> Subject:
    """Return a small GPT, and texts in which each letter follows the one before it."""
    torch.manual_seed(0)
    gpt = Gpt(len(ALPHABET), width=16, layers=2, heads=2, feed_forward=32, context=CONTEXT).eval()
    starts = np.arange(24)[:, None]
    text = 2 + (starts + np.arange(CONTEXT + 1)) % 9
    samples = Samples((text[:, :-1],), text[:, 1:])
    task = ArrayTask(
        "letters",
        {"calibration": lambda: samples, "test": lambda: samples},
        BITS,
        bits_per_character,
        preprocessing=CharacterPreprocessing(ALPHABET, CONTEXT),
    )
    return Subject("writer", gpt, task, states=gpt.state())


def written_by(gpt: nn.Module, text: str, count: int) -> str:
    """Take the most probable letter each time, with the network for whole sequences."""
    for _ in range(count):
        tokens = torch.tensor([[ALPHABET.index(c) for c in text]])
        with torch.no_grad():
            text += ALPHABET[int(gpt(tokens)[0, -1].argmax())]
    return text
