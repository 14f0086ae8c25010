"""How far two ONNX files with the same inputs are apart."""

import math
from dataclasses import dataclass

import numpy as np
import onnx

from edgedl.compress.convert.foreign import ForeignNetwork
from edgedl.compress.convert.foreign_floats import widened
from edgedl.compress.encodings.affine import range_of
from edgedl.compress.modelfile.onnx_shapes import shape_of
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.tensors import Floats
from edgedl.runtime.wording import counted

# Tried one after another for what a file leaves free besides the batch.
FREE_SIZES = (32, 64, 128, 224, 16, 8, 1)
_FLOATS = ("float16", "float32", "float64")
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
        samples=max((len(x) for x in inputs if x.ndim), default=1),
        sqnr_db=_decibels(signal, noise),
        same_prediction=float(same.mean()) if predicts else None,
    )


def noise_for(content: bytes, network: ForeignNetwork, samples: int) -> tuple[Array, ...]:
    """Return noise that fills the range of every input, [samples, ...] where its batch is free.

    Of other free axes the size is the first of ``FREE_SIZES`` that the file takes.

    Args:
        content: the file.
        network: what was read from it.
        samples: of a free batch.

    Raises:
        BadInputError: an input is of whole numbers, or the file takes none of those sizes.
    """
    shapes = [shape_of(value) for value in network.model.graph.input]
    free = any(shape is not None and None in shape[1:] for shape in shapes)
    for size in FREE_SIZES if free else FREE_SIZES[:1]:
        arrays = _noise(network, samples, size)
        if not free or _takes(content, arrays):
            return arrays
    raise BadInputError(
        "the file takes none of the sizes that were tried for its free axes: give arrays with "
        "--input"
    )


def _noise(network: ForeignNetwork, samples: int, size: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(0)
    arrays: list[Array] = []
    for value in network.model.graph.input:
        number, shape = value.type.tensor_type.elem_type, shape_of(value)
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else "no tensor"
        if dtype not in _FLOATS or shape is None:
            what = "of any number of axes" if shape is None else dtype
            raise BadInputError(f"input '{value.name}' is {what}: give arrays with --input")
        sizes = [(size if i else samples) if d is None else d for i, d in enumerate(shape)]
        grid = network.grids.get(value.name) or network.grids.get(widened(value.name))
        ends = range_of(grid.scale, grid.zero_point) if grid else None
        lo, hi = (ends.lo, ends.hi) if ends else (-1.0, 1.0)
        arrays.append(np.asarray(rng.uniform(lo, hi, sizes), dtype))
    return tuple(arrays)


def _takes(content: bytes, inputs: tuple[Array, ...]) -> bool:
    """Say whether a file runs on arrays of these sizes."""
    try:
        _run(content, inputs)
    except BadInputError:
        return False
    return True


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
