"""How far two ONNX files with the same inputs are apart."""

import math
from dataclasses import dataclass

import numpy as np
import onnx

from edgedl.compress.convert.foreign import ForeignNetwork
from edgedl.compress.encodings.affine import range_of
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.runner import Floats
from edgedl.runtime.wording import counted

FREE_SIZE = 1
FAR_DB, FAR_PREDICTIONS = 20.0, 0.95


@dataclass(frozen=True)
class Agreement:
    """Two files on the same inputs.

    Attributes:
        samples: compared.
        sqnr_db: energy of the first's outputs over that of the differences; None if equal.
        same_prediction: share of samples with the same argmax; None for outputs that are not
            [N, K].
    """

    samples: int
    sqnr_db: float | None
    same_prediction: float | None

    @property
    def far(self) -> bool:
        """Whether they are further apart than two grids for the same ranges are."""
        noisy = self.sqnr_db is not None and not self.sqnr_db >= FAR_DB
        same = 1.0 if self.same_prediction is None else self.same_prediction
        return noisy or same < FAR_PREDICTIONS

    def describe(self) -> str:
        """Return it in a few words."""
        said = "the same outputs" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        if self.same_prediction is not None:
            said += f", {100 * self.same_prediction:.1f} % the same prediction"
        return f"{said}, {counted(self.samples, 'sample')}"


def agreement(first: bytes, second: bytes, inputs: tuple[Array, ...]) -> Agreement:
    """Run two files operator by operator and compare all their outputs.

    Args:
        first: the file to hold the other against.
        second: the other.
        inputs: one array [N, ...] per input.

    Raises:
        BadInputError: ONNX Runtime refuses a file or the inputs.
    """
    expected, found = _run(first, inputs), _run(second, inputs)
    signal = sum(float((a.astype(np.float64) ** 2).sum()) for a in expected)
    noise = sum(
        float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(expected, found, strict=True)
    )
    predicts = expected[0].ndim == 2 and expected[0].shape[1] > 1
    same = expected[0].argmax(-1) == found[0].argmax(-1)
    return Agreement(
        samples=len(inputs[0]),
        sqnr_db=_decibels(signal, noise),
        same_prediction=float(same.mean()) if predicts else None,
    )


def noise_for(network: ForeignNetwork, samples: int) -> tuple[Array, ...]:
    """Return noise that fills the range of every input, float32 [samples, ...]."""
    rng = np.random.default_rng(0)
    stored = {t.name for t in network.model.graph.initializer}
    arrays: list[Array] = []
    for value in network.model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            raise BadInputError(f"input '{value.name}' is not float32: give arrays with --input")
        shape = [d.dim_value or FREE_SIZE for d in tensor.shape.dim]
        if not tensor.shape.dim[0].dim_value:
            shape[0] = samples
        grid = network.grids.get(value.name)
        ends = range_of(grid.scale, grid.zero_point) if grid else None
        lo, hi = (ends.lo, ends.hi) if ends else (-1.0, 1.0)
        arrays.append(rng.uniform(lo, hi, shape).astype(np.float32))
    return tuple(arrays)


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _run(model: bytes, inputs: tuple[Array, ...]) -> list[Floats]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        if len(names) != len(inputs):
            raise BadInputError(
                f"the file has {len(names)} inputs, {len(inputs)} arrays were given"
            )
        outputs: list[Floats] = session.run(None, dict(zip(names, inputs, strict=True)))
    except BadInputError:
        raise
    except Exception as error:
        # onnxruntime raises a dozen unrelated classes here.
        raise BadInputError(f"ONNX Runtime refuses: {' '.join(str(error).split())}") from error
    return outputs
