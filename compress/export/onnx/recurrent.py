"""The ONNX form of the simple recurrent layer, which torch.onnx would unroll step by step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def translations() -> dict[Any, Callable[..., Any]]:
    """Return torch operator -> function that writes it as ONNX, for ``torch.onnx.export``."""
    aten = torch.ops.aten
    return {aten.rnn_tanh.input: _translate("Tanh"), aten.rnn_relu.input: _translate("Relu")}


def _translate(activation: str) -> Callable[..., Any]:
    """Return the translation of ``rnn_tanh.input`` or ``rnn_relu.input``.

    Source: ONNX operator specification, "RNN" (opset 14): W [D, H, C], R [D, H, H], B [D, 2H].
    """
    # Its stubs know tensors only, while a list is a constant to it as well.
    from onnxscript import opset20

    op: Any = opset20

    def rnn(
        x: Any,
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, Any]:
        directions = 2 if bidirectional else 1
        per_direction = 4 if has_biases else 2
        states = []
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        for layer in range(num_layers):
            first = layer * directions * per_direction
            groups = [
                params[first + d * per_direction : first + (d + 1) * per_direction]
                for d in range(directions)
            ]
            weights = [
                op.Concat(*(op.Unsqueeze(group[i], [0]) for group in groups), axis=0)
                for i in range(2)
            ]
            biases = [
                op.Unsqueeze(op.Concat(group[2], group[3], axis=0), [0])
                for group in groups
                if has_biases
            ]
            start = op.Slice(hx, [layer * directions], [(layer + 1) * directions], [0])
            y, state = op.RNN(
                x,
                *weights,
                op.Concat(*biases, axis=0) if biases else None,
                initial_h=start,
                activations=[activation] * directions,
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=int(hx.shape[2]),
            )
            # Y is [T, D, N, H]; the next layer takes [T, N, D * H].
            x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
            states.append(state)
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        return x, states[0] if len(states) == 1 else op.Concat(*states, axis=0)

    return rnn
