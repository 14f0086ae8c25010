"""OpenVINO on the CPU."""

from collections.abc import Sequence
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgedl.runtime.backend import Array, Availability, Session
from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.backends.onnx_outputs import with_outputs
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.precision import BFLOAT16

if TYPE_CHECKING:
    import openvino

DEVICE = "CPU"
Shapes = tuple[tuple[int, ...], ...]


class OpenVINOSession(Session):
    """An ONNX file in OpenVINO, compiled once for each size of its inputs.

    A size that is known when the file is compiled is faster than one that is left free.
    """

    def __init__(
        self,
        core: "openvino.Core",
        model: bytes,
        artifact: Artifact,
        threads: int,
        tensors: Sequence[str] = (),
    ) -> None:
        """Compile the file for one sample, where the batch is all that is free.

        ``tensors`` are returned behind the outputs, in their order.
        """
        self._core, self._model, self._artifact = core, model, artifact
        self._settings = latency_settings("bf16" if artifact.kind is BFLOAT16 else "f32", threads)
        self._outputs = [*(spec.name for spec in artifact.outputs), *tensors]
        self._requests: dict[Shapes, openvino.InferRequest] = {}
        self._closed = False
        # A request has one place for each input and output, whoever calls it.
        self._lock = Lock()
        single = tuple((1, *spec.shape[1:]) for spec in artifact.inputs)
        if all(isinstance(size, int) for shape in single for size in shape):
            self._request(single)  # type: ignore[arg-type]
        else:
            self._compile(())

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference; any size where the shape leaves it free."""
        shapes = tuple(x.shape for x in inputs)
        with self._lock:
            request = self._requests.get(shapes) or self._request(shapes)
            request.infer(dict(enumerate(inputs)), share_inputs=True)
            # What a request returns is a view of its memory.
            return [np.array(request.get_tensor(name).data) for name in self._outputs]

    def close(self) -> None:
        """Drop every compiled form, after the call that runs."""
        with self._lock:
            self._requests.clear()
            self._closed = True

    def _request(self, shapes: Shapes) -> "openvino.InferRequest":
        if self._closed:
            raise BadInputError("this session is closed")
        self._requests[shapes] = self._compile(shapes).create_infer_request()
        return self._requests[shapes]

    def _compile(self, shapes: Shapes) -> "openvino.CompiledModel":
        """Compile the file for some sizes; for none, as it is."""
        try:
            model = self._core.read_model(self._model)
            if shapes:
                names = [spec.name for spec in self._artifact.inputs]
                model.reshape(dict(zip(names, map(list, shapes), strict=True)))
            compiled = compile_model(self._core, model, self._settings)
        except RuntimeError as error:
            path, why = self._artifact.path, _cause(error)
            raise BadInputError(f"OpenVINO refuses {path}: {why}") from error
        self._check(compiled)
        return compiled

    def _check(self, compiled: "openvino.CompiledModel") -> None:
        """Refuse what computes elsewhere or in another precision than was asked for."""
        wanted = self._settings["INFERENCE_PRECISION_HINT"]
        found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        devices = compiled.get_property("EXECUTION_DEVICES")
        if found != wanted or list(devices) != [DEVICE]:
            raise BadInputError(
                f"OpenVINO would compute {self._artifact.name} in {found} on {', '.join(devices)}, "
                f"wanted is {wanted} on {DEVICE}"
            )
        known = {name for port in (*compiled.inputs, *compiled.outputs) for name in port.names}
        for spec in (*self._artifact.inputs, *self._artifact.outputs):
            if spec.name not in known:
                listed = ", ".join(sorted(known))
                raise BadInputError(
                    f"{self._artifact.path} has no tensor '{spec.name}': it has {listed}"
                )


class OpenVINOBackend:
    """Loads ONNX files on the CPU, in the precision that the artifact names."""

    label = "OpenVINO"
    package = "openvino"
    files = "openvino"
    suffix = ".onnx"
    rounds_inputs = False
    parses_apart = False
    on_gpu = False
    without_vnni: str | None = "openvino_avx2"

    def available(self) -> Availability:
        """Say whether openvino imports."""
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, _missing())))
        return Availability(True, f"openvino {version('openvino')}")

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load an ONNX file; ``threads`` work inside an operator, on one sample at a time."""
        refuse_external_data(model, artifact.path)
        return OpenVINOSession(_core(artifact), model, artifact, threads)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of an ONNX file whose inner tensors are outputs."""
        refuse_external_data(model, artifact.path)
        shown = with_outputs(model, tensors)
        return OpenVINOSession(_core(artifact), shown, artifact, 1, tensors)


def _core(artifact: Artifact) -> "openvino.Core":
    """Return the runtime, if it can compute the artifact's precision here."""
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    core = openvino.Core()
    computes = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if artifact.kind is BFLOAT16 and "BF16" not in computes:
        raise BadInputError("this processor has no bfloat16, OpenVINO would compute in float32")
    return core


class ExecutedOperator(NamedTuple):
    """An operator that OpenVINO runs: its kind, its precision, the nodes of the file that it is."""

    kind: str
    precision: str
    nodes: tuple[str, ...]


def executed_operators(model: bytes) -> list[ExecutedOperator]:
    """Return every operator that OpenVINO runs of a model, for one sample, in float32.

    Raises:
        BackendUnavailableError: openvino is not installed.
        BadInputError: it refuses the model.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    core = openvino.Core()
    try:
        read = core.read_model(model)
        read.reshape({port: _of_one_sample(port.get_partial_shape()) for port in read.inputs})
        compiled = compile_model(core, read, latency_settings("f32", 1))
    except RuntimeError as error:
        raise BadInputError(f"OpenVINO refuses the file: {_cause(error)}") from error
    infos = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    return [
        ExecutedOperator(
            str(info["layerType"].value),
            str(info["runtimePrecision"].value),
            tuple(str(info["originalLayersNames"].value).split(",")),
        )
        for info in infos
    ]


def _of_one_sample(shape: "openvino.PartialShape") -> "openvino.PartialShape":
    """Return an input's shape with a batch of 1 where the batch is free."""
    if len(shape) and shape[0].is_dynamic:
        shape[0] = 1
    return shape


def latency_settings(precision: str, threads: int) -> dict[str, str | int]:
    """Return the properties with which a call is fast, and computes what the artifact says.

    Left alone, OpenVINO computes float32 files in bfloat16 on processors that have it, and rounds
    the inputs of layers with integer weights to int8.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def compile_model(
    core: "openvino.Core", model: "openvino.Model", settings: dict[str, str | int]
) -> "openvino.CompiledModel":
    """Compile a model without the forms that this version computes wrong or crashes on."""
    _average_as_pictures(model)
    if _chains_products(model):
        settings = {**settings, "SNIPPETS_MODE": "DISABLE"}
    return core.compile_model(model, DEVICE, settings)


def _average_as_pictures(model: "openvino.Model") -> None:
    """Take means of integers [N, C, T] over one axis as those of pictures [N, C, 1, T], in place.

    OpenVINO 2026's kernel gives wrong results of the former in larger batches.
    """
    from openvino import opset8

    operators = model.get_ordered_ops()
    if not any(operator.get_type_name() == "FakeQuantize" for operator in operators):
        return
    for mean in operators:
        if mean.get_type_name() != "ReduceMean":
            continue
        shape, constant = mean.input(0).get_partial_shape(), mean.input_value(1).get_node()
        if shape.rank.is_dynamic or len(shape) != 3 or not hasattr(constant, "get_data"):
            continue
        axes = [int(axis) % 3 for axis in constant.get_data().ravel()]
        if axes not in ([1], [2]):
            continue
        # The axis is put last, and a height of 1 before it.
        order, height, both = [0, 3 - axes[0], axes[0]], [2], [2, 3]
        turned = opset8.transpose(mean.input_value(0), np.array(order))
        found = opset8.reduce_mean(opset8.unsqueeze(turned, np.array(height)), np.array(both), True)
        if mean.get_attributes()["keep_dims"]:
            found = opset8.transpose(opset8.squeeze(found, np.array(height)), np.array(order))
        else:
            found = opset8.squeeze(found, np.array(both))
        found.output(0).get_tensor().set_names(mean.output(0).get_names())
        mean.output(0).replace(found.output(0))
    model.validate_nodes_and_infer_types()


def _chains_products(model: "openvino.Model") -> bool:
    """Say whether a product of matrices reads another's result, with matrices alone between.

    On one thread OpenVINO 2026 can crash while it joins such layers of float32 to one kernel.
    """
    behind: set[str] = set()
    for operator in model.get_ordered_ops():
        reads = any(
            port.get_source_output().get_node().get_friendly_name() in behind
            for port in operator.inputs()
        )
        multiplies = operator.get_type_name() == "MatMul"
        if reads and multiplies:
            return True
        shapes = [port.get_partial_shape() for port in operator.outputs()]
        if (reads or multiplies) and all(len(s) == 2 for s in shapes if s.rank.is_static):
            behind.add(operator.get_friendly_name())
    return False


def _cause(error: RuntimeError) -> str:
    """Return the sentence that matters of an exception of several lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return " ".join(said or lines)


def _missing() -> str:
    return f"openvino is missing: {install_line('openvino')}"


BACKEND = OpenVINOBackend()
