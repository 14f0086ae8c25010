"""Values to observe, and a histogram of them."""

import numpy as np
import torch

from edgedl.compress.encodings.observers import Histogram


def histogram(*batches: np.ndarray) -> Histogram:
    result = Histogram()
    for batch in batches:
        result.add(torch.tensor(np.asarray(batch, np.float32)))
    return result


def samples(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(6000)
    if kind == "heavy_tail":
        x = rng.standard_t(2.5, 6000)
    elif kind == "relu":
        x = np.maximum(x, 0)
    elif kind == "silu":
        x = 3 * x / (1 + np.exp(-3 * x))
    elif kind == "one_outlier":
        x[0] = 40.0
    elif kind == "negative":
        x = -np.abs(x) - 0.5
    return x.astype(np.float32)
