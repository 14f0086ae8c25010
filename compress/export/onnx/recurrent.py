"""The ONNX forms of recurrent layers, of any length.

torch.onnx unrolls the simple one step by step, and writes the example's length into what stands
between two others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class _Kind:
    """How ONNX writes a layer.

    Attributes:
        operator: of ONNX.
        gates: torch's gates in ONNX's order: rows of its weights.
        states: that it keeps: the hidden one, and the cell.
        attributes: of the operator; ``activations`` stands once for each direction.
    """

    operator: str
    gates: tuple[int, ...]
    states: int
    attributes: dict[str, Any]


# Source: ONNX operator specification, "LSTM" (gates iofc), "GRU" (zrh, and linear_before_reset as
# torch has it), "RNN"; torch's gates are ifgo and rzn.
_LSTM = _Kind("LSTM", (0, 3, 1, 2), 2, {})
_GRU = _Kind("GRU", (1, 0, 2), 1, {"linear_before_reset": 1})
_TANH = _Kind("RNN", (0,), 1, {"activations": ["Tanh"]})
_RELU = _Kind("RNN", (0,), 1, {"activations": ["Relu"]})


def translations() -> dict[Any, Callable[..., Any]]:
    """Return torch operator -> function that writes it as ONNX, for ``torch.onnx.export``."""
    aten = torch.ops.aten
    return {
        aten.lstm.input: _translate(_LSTM),
        aten.gru.input: _translate(_GRU),
        aten.rnn_tanh.input: _translate(_TANH),
        aten.rnn_relu.input: _translate(_RELU),
    }


def _translate(kind: _Kind) -> Callable[..., Any]:
    # Its stubs know tensors only, while a list is a constant to it as well.
    from onnxscript import opset20

    op: Any = opset20

    def write(
        x: Any,
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Any, ...]:
        directions = 2 if bidirectional else 1
        starts = list(hx) if kind.states > 1 else [hx]
        hidden = int(starts[0].shape[2])
        if len(params) != num_layers * directions * (4 if has_biases else 2):
            raise NotImplementedError(f"{kind.operator} with projections has no ONNX form")
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        ends: list[list[Any]] = [[] for _ in starts]
        per_layer = len(params) // num_layers
        for layer in range(num_layers):
            own = params[layer * per_layer : (layer + 1) * per_layer]
            y, *states = _layer(
                op,
                kind,
                x,
                own,
                has_biases,
                directions,
                hidden,
                [
                    op.Slice(s, [layer * directions], [(layer + 1) * directions], [0])
                    for s in starts
                ],
            )
            # Y is [T, D, N, H]; the next layer takes [T, N, D * H].
            if directions == 1:
                x = op.Squeeze(y, [1])
            else:
                x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
            for found, state in zip(ends, states, strict=True):
                found.append(state)
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        return x, *(s[0] if len(s) == 1 else op.Concat(*s, axis=0) for s in ends)

    return write


def _layer(
    op: Any,
    kind: _Kind,
    x: Any,
    params: Sequence[Any],
    has_biases: bool,
    directions: int,
    hidden: int,
    starts: Sequence[Any],
) -> tuple[Any, ...]:
    """Write one layer over [T, N, C]; return Y [T, D, N, H] and the last states [D, N, H]."""
    each = len(params) // directions

    def ordered(index: int) -> Any:
        """Return a weight or bias of all directions with ONNX's order of gates: [D, G * H, ...]."""
        return op.Concat(
            *(
                op.Unsqueeze(_reorder(op, kind, params[d * each + index], hidden), [0])
                for d in range(directions)
            ),
            axis=0,
        )

    bias = op.Concat(ordered(2), ordered(3), axis=1) if has_biases else None
    attributes = dict(kind.attributes)
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * directions
    found = getattr(op, kind.operator)(
        x,
        ordered(0),
        ordered(1),
        bias,
        None,
        *starts,
        direction="bidirectional" if directions == 2 else "forward",
        hidden_size=hidden,
        **attributes,
    )
    return tuple(found)


def _reorder(op: Any, kind: _Kind, weight: Any, hidden: int) -> Any:
    if len(kind.gates) == 1:
        return weight
    parts = [op.Slice(weight, [g * hidden], [(g + 1) * hidden], [0]) for g in kind.gates]
    return op.Concat(*parts, axis=0)
