"""What a step of a drawn network is."""

import random
from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

Kind = Literal["picture", "series", "vector"]
# What it is called, the kind that it gives, and what makes it from the shape of what it reads.
Step = tuple[str, Kind, Callable[[random.Random, Sequence[int]], nn.Module]]
