"""Check that an ONNX file is one that TensorRT takes and reads the way it was meant.

With ``tensorrt-rtx`` installed NVIDIA's own parser and builder decide; they need no GPU. Without
it, the rules of ``lint`` do, which are what that parser enforces (and one thing it does not).
"""

import importlib.util
from importlib.metadata import version

import onnx

from edgedl.compress.export.exporter import Verdict
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.export.tensorrt.lint import lint, remarks
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.runtime.tensorrt.profiles import profile

BUILD_TIMEOUT_S = 300


def check_tensorrt(model: bytes) -> Verdict:
    """Return NVIDIA's verdict if its builder is installed, else the lint's.

    The lint always runs: the parser accepts uint8 tensors and silently reads them as int8, which
    clips the upper half of their range.
    """
    read = onnx.load_from_string(model)
    problems = lint(read)
    if problems:
        return Verdict("edgedl's TensorRT lint", False, problems[0])
    remarked = tuple(remarks(read))
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return Verdict(checker(), True, "", remarked)
    return _build(model, remarked)


def checker() -> str:
    """Return who says what TensorRT takes on this machine."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "edgedl's TensorRT lint (tensorrt-rtx is not installed)"
    return f"tensorrt-rtx {version('tensorrt-rtx')} (parser and builder)"


def _build(model: bytes, remarked: tuple[str, ...]) -> Verdict:
    """Let NVIDIA's builder decide: a crash there is a verdict, not ours."""
    inputs, _ = describe_onnx(model)
    settings = BuildSettings("tensorrt_rtx", profile(inputs))
    try:
        build_engine(model, settings, timeout_s=BUILD_TIMEOUT_S)
    except (EngineRefusedError, BackendUnavailableError) as error:
        return Verdict(checker(), False, str(error))
    return Verdict(checker(), True, "", remarked)
