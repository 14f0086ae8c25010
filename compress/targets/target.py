"""What files are made for: each target is a YAML file in ``edgedl.compress.targets``."""

import difflib
import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from edgedl.compress.yaml_keys import refuse_repeated_keys
from edgedl.runtime.bundle.manifest import BackendName, Precision
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.saturation import saturates

# A target's name, that of its file in the package, or the path of a file of one's own.
Target = str
OWN = (".yaml", ".yml")
# What files are made for when nothing is said.
TARGETS: tuple[Target, ...] = ("ort", "tflite", "tensorrt")
MAX_WEIGHT_BITS = 8
# Files that are no others for another processor.
FLOATS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
# Whose weights kernels without VNNI add up.
WITHOUT_VNNI: Target = "ort_avx2"


class TargetDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a runtime on a kind of processor wants its files.

    Attributes:
        description: one line for people.
        runtime: that loads the files.
        activations: type of quantized activations.
        symmetric: whether their zero points must be 0.
        pairs: where quantize/dequantize pairs stand: at "every_tensor" that integer operators
            read or write, or at "layer_inputs", those of convolutions, linear layers and one
            operand of a residual add.
        folds_activations: whether an activation is folded into the operator before it "always",
            or only where the integers are "within_bounds" of it anyhow.
        folds_padding: whether a padding is taken into the convolution behind it if no pair stands
            between the two.
        integer_biases: whether biases are rounded to the int32 grid of the accumulator.
        float_results: whether integer kernels of linear layers and matrix products can give
            floats; where they cannot, every result is rounded.
        weight_bits: most bits of an int8 weight that the kernels add up without saturating.
        channel_multiple: widths of convolutions that the kernels compute without waste are
            multiples of it; measured with ``edgedl.tools.benchmarks.training.channel_widths``.
        precisions: of the files to make.
        refused: why there are no files of other precisions that a recipe asks for.
    """

    description: str
    runtime: BackendName
    activations: Literal["uint8", "int8"]
    symmetric: bool
    pairs: Literal["every_tensor", "layer_inputs"]
    folds_activations: Literal["always", "within_bounds"]
    folds_padding: bool
    integer_biases: bool
    float_results: bool
    weight_bits: Annotated[int, Meta(ge=2, le=MAX_WEIGHT_BITS)]
    channel_multiple: Annotated[int, Meta(ge=1)]
    precisions: tuple[Precision, ...]
    refused: dict[Precision, str] = {}


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another processor: what its kernels have otherwise than those of a target that is there.

    Attributes:
        like: name of that target: its runtime reads the files.
        description: one line for people.
        weight_bits: as of ``TargetDescription``; None is as ``like`` has it.
        channel_multiple: the same.
        precisions: of the files to make, some of what ``like`` has; None is all but the float
            ones, which are no others for another processor.
        refused: why there are no files of some precisions, besides those that ``like`` refuses.
    """

    like: str
    description: str
    weight_bits: Annotated[int, Meta(ge=2, le=MAX_WEIGHT_BITS)] | None = None
    channel_multiple: Annotated[int, Meta(ge=1)] | None = None
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1)] | None = None
    refused: dict[Precision, str] = {}


def target_name(target: Target) -> str:
    """Return what files of a target are called by.

    >>> target_name("devices/pi4.yaml"), target_name("ort")
    ('pi4', 'ort')
    """
    return Path(target).stem if target.endswith(OWN) else target


def weight_bits(targets: Collection[Target]) -> int:
    """Return how many bits int8 weights may have in one bundle for several targets.

    Files are checked and measured on this machine, so if its processor saturates, those for ONNX
    Runtime get weights as small as for the target ``ort_avx2``.
    """
    binding = (*targets, WITHOUT_VNNI) if saturates_here(targets) else targets
    return min(describe_target(target).weight_bits for target in binding)


def saturates_here(targets: Collection[Target]) -> bool:
    """Return whether kernels of the targets would saturate with 8-bit weights on this machine."""
    runtimes = {describe_target(target).runtime for target in targets}
    return "ort" in runtimes and saturates(run_context().isa)


@cache
def describe_target(name: Target) -> TargetDescription:
    """Return a target by name, or the one that a YAML file of one's own describes (``Variant``).

    Raises:
        BadInputError: there is none of that name, or the file does not describe one.

    >>> describe_target("tensorrt").symmetric
    True
    """
    if name.endswith(OWN):
        return _read_own(Path(name))
    file = files("edgedl.compress.targets") / f"{name}.yaml"
    if not file.is_file():
        near = difflib.get_close_matches(name, target_names(), 1)
        hint = f", did you mean '{near[0]}'?" if near else ":"
        raise BadInputError(f"unknown target '{name}'{hint} there are {', '.join(target_names())}")
    said = yaml.safe_load(file.read_text())
    if "like" in said:
        return _variant(msgspec.convert(said, Variant), name)
    return msgspec.convert(said, TargetDescription)


def _read_own(path: Path) -> TargetDescription:
    name = path.stem
    if name in target_names() or not re.fullmatch(r"\w+", name, re.ASCII):
        raise BadInputError(
            f"{path}: a target of one's own needs a name of letters, digits and _ that no other "
            f"target has: rename the file, '{name}' it cannot be"
        )
    try:
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), str(path))
        own = msgspec.convert(yaml.safe_load(text), Variant)
    except OSError as error:
        raise BadInputError(f"the target {path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).partition("\n")[0]
        keys = ", ".join(f.name for f in msgspec.structs.fields(Variant))
        raise BadInputError(f"{path} describes no target: {first}; the keys are {keys}") from error
    return _variant(own, str(path))


def _variant(own: Variant, name: str) -> TargetDescription:
    """Return the whole description of a variant.

    Raises:
        BadInputError: it is like no target of the package, or wants files that that does not have.
    """
    if own.like not in target_names():
        raise BadInputError(
            f"{name}: like is '{own.like}', it must be one of {', '.join(target_names())}"
        )
    like = describe_target(own.like)
    given = {k: v for k, v in msgspec.structs.asdict(own).items() if v is not None and k != "like"}
    made = tuple(p for p in like.precisions if p not in (*FLOATS, *own.refused))
    unknown = [p for p in own.precisions or () if p not in like.precisions]
    if unknown:
        raise BadInputError(
            f"{name}: there are no files of {unknown[0]} for a target like {own.like}, which has "
            f"{', '.join(like.precisions)}"
        )
    whole = {"precisions": made, **given, "refused": {**like.refused, **own.refused}}
    return msgspec.structs.replace(like, **whole)


def target_names() -> list[str]:
    """Return the names of every target."""
    folder = files("edgedl.compress.targets")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )
