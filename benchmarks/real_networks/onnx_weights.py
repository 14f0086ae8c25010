"""Weights out of ONNX files, for torch modules that compute the same."""

from pathlib import Path

import torch
from torch import Tensor


def initializers(path: Path) -> dict[str, Tensor]:
    """Return the stored tensors of an ONNX file by name."""
    import onnx
    from onnx import numpy_helper

    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(str(path)).graph.initializer
    }


def gru_weights(w: Tensor, r: Tensor, b: Tensor, layer: int) -> dict[str, Tensor]:
    """Return the parameters of a torch GRU's layer; ONNX has its gates in another order.

    Args:
        w: [1, 3 * hidden, input].
        r: [1, 3 * hidden, hidden].
        b: [1, 6 * hidden].
        layer: number of the layer.
    """
    hidden = r.shape[2]
    of_input, of_hidden = b[0].split(3 * hidden)
    parts = {"weight_ih": w[0], "weight_hh": r[0], "bias_ih": of_input, "bias_hh": of_hidden}
    found = {}
    for name, value in parts.items():
        update, reset, new = value.split(hidden)
        found[f"gru.{name}_l{layer}"] = torch.cat([reset, update, new])
    return found
