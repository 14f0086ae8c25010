"""Descriptions of targets, read from YAML without torch: the command line lists and checks them."""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from edgedl.compress.targets.integer_kernels import Int16Kernels
from edgedl.compress.yaml_text import read_yaml
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import Precision, precision_named
from edgedl.runtime.wording import meant, nearest

if TYPE_CHECKING:
    from edgedl.compress.graph.operators.operator import Operator

OWN = (".yaml", ".yml")
MAX_WEIGHT_BITS = 8

WeightBits = Annotated[int, Meta(ge=2, le=MAX_WEIGHT_BITS)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a runtime on a kind of processor wants its files.

    Attributes:
        description: one line for people.
        runtime: that loads the files.
        activations: type of quantized activations.
        symmetric: whether their zero points must be 0.
        pictures: where pictures and maps have their channels in files' inputs and outputs.
        pairs: where quantize/dequantize pairs stand: at "every_tensor" that integer operators
            read or write; before "integer_readers", so that float operators read what integer
            ones give unrounded; or at "layer_inputs", those of convolutions, linear layers and
            one operand of a residual add.
        constants: what quantized constants are stored as: "integers", or "floats" behind a
            quantize, which the runtime's converter rounds.
        folds_activations: whether an activation is folded into the operator before it "always",
            or only where the integers are "within_bounds" of it anyhow.
        folds_padding: whether a padding is taken into the convolution behind it if no pair stands
            between the two.
        opens_hard_activations: whether hard sigmoids and hard swishes are written as the operators
            that they are made of, for want of an integer kernel.
        stores_numbers: whether numbers in integer arithmetic are stored as tensors.
        clips_integers: whether what clips or scales a grid does so on the integers.
        joins_phases: whether the phases of a transposed convolution that computes in float are
            joined to one operator again.
        input_norms: where the normalisation of an input is computed: as a layer of "integer"
            arithmetic, in "float" before the first rounding, or "outside" of the files, by who
            feeds them: the manifest says with which means and deviations.
        integer_biases: whether biases are rounded to the int32 grid of the accumulator.
        float_results: whether integer kernels of linear layers and matrix products can give
            floats; where they cannot, every result is rounded.
        weight_bits: most bits of an int8 weight that the kernels add up without saturating.
        weight_bits_without_vnni: the same on x86 processors without VNNI; None is as many.
        channel_multiple: widths of convolutions that the kernels compute without waste are
            multiples of it; measured with ``benchmarks.training.channel_widths``.
        precisions: names of those of the files to make.
        integer_operators: names of the rows of the operator table that the runtime computes in
            integers; all others compute in float.
        int16: which of those it has no kernels for with 16-bit activations.
        refused: why there are no files of other precisions that a recipe asks for.
        name: what its files are called by; that of its YAML file.
    """

    description: str
    runtime: str
    activations: Literal["uint8", "int8"]
    symmetric: bool
    pictures: Literal["nchw", "nhwc"]
    pairs: Literal["every_tensor", "integer_readers", "layer_inputs"]
    constants: Literal["integers", "floats"]
    folds_activations: Literal["always", "within_bounds"]
    folds_padding: bool
    opens_hard_activations: bool
    stores_numbers: bool
    clips_integers: bool
    joins_phases: bool
    input_norms: Literal["integer", "float", "outside"]
    integer_biases: bool
    float_results: bool
    weight_bits: WeightBits
    channel_multiple: Annotated[int, Meta(ge=1)]
    precisions: tuple[str, ...]
    integer_operators: frozenset[str]
    int16: Int16Kernels = Int16Kernels()
    refused: dict[str, str] = {}
    weight_bits_without_vnni: WeightBits | None = None
    name: str = ""

    def __hash__(self) -> int:
        """Return that of the name."""
        return hash(self.name)

    def has(self, precision: Precision) -> bool:
        """Say whether there are files of a precision, or a reason why there are none."""
        return precision.name in (*self.precisions, *self.refused)

    def artifact_name(self, precision: Precision) -> str:
        """Return what the file of a precision is called in bundles and reports."""
        return f"{self.name}-{precision}"

    @property
    def weight_bits_here(self) -> int:
        """Return the weight bits that kernels on this machine, too, add up without saturating.

        Files are checked and measured here.
        """
        from edgedl.runtime.measure.device import run_context, saturates

        if self.weight_bits_without_vnni is None or not saturates(run_context().isa):
            return self.weight_bits
        return min(self.weight_bits, self.weight_bits_without_vnni)

    def computes_in_integers(self, row: "Operator") -> bool:
        """Say whether the runtime has integer kernels for an operator."""
        return row.name in self.integer_operators


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another processor: what its kernels have otherwise than those of a target that is there.

    Attributes:
        like: name of that target: its runtime reads the files.
        description: one line for people.
        weight_bits: as of ``Target``; None is as ``like`` has it.
        channel_multiple: the same.
        precisions: of the files to make, some of what ``like`` has; None is all but the float
            ones, which are no others for another processor.
        refused: why there are no files of some precisions, besides those that ``like`` refuses.
    """

    like: str
    description: str
    weight_bits: WeightBits | None = None
    channel_multiple: Annotated[int, Meta(ge=1)] | None = None
    precisions: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    refused: dict[str, str] = {}


@cache
def described_target(name: str) -> Target:
    """Return a target by name, or the one that a YAML file of one's own describes (``Variant``).

    Raises:
        BadInputError: there is none of that name, or the file does not describe one.

    >>> described_target("tensorrt").symmetric
    True
    """
    if name.endswith(OWN):
        return _read_own(Path(name))
    if name not in target_names():
        raise BadInputError(f"unknown target '{name}'{meant(name, target_names())}")
    said = yaml.safe_load((files("edgedl.compress.targets") / f"{name}.yaml").read_text())
    if "like" in said:
        return _variant(msgspec.convert(said, Variant), name, name)
    return _checked(msgspec.convert({**said, "name": name}, Target))


def _checked(target: Target) -> Target:
    """Return a target whose precisions are all known.

    Raises:
        BadInputError: one is not.
    """
    for name in (*target.precisions, *target.refused):
        precision_named(name)
    return target


def _read_own(path: Path) -> Target:
    name = path.stem
    if name in target_names() or not re.fullmatch(r"\w+", name, re.ASCII):
        raise BadInputError(
            f"{path}: your own target needs a name of letters, digits and _ that no other "
            f"target has: rename the file, '{name}' is not allowed"
        )
    try:
        text = path.read_text(encoding="utf-8")
        own = msgspec.convert(read_yaml(text, str(path))[1], Variant)
    except OSError as error:
        raise BadInputError(f"the target {path} cannot be read ({error.strerror})") from error
    except BadInputError:
        raise
    except ValueError as error:
        first = str(error).partition("\n")[0]
        raise BadInputError(f"{path} describes no target: {first}{_keys(first)}") from error
    return _variant(own, name, str(path))


def _keys(message: str) -> str:
    """Return the keys that a file can have, the one nearest to an unknown key of it first."""
    keys = [f.name for f in msgspec.structs.fields(Variant)]
    unknown = re.search(r"unknown field `(.+)`", message)
    hint = nearest(unknown.group(1), keys) if unknown else ""
    return f"{hint or ';'} the keys are {', '.join(keys)}"


def _variant(own: Variant, name: str, source: str) -> Target:
    """Return the whole description of a variant; errors call it by its source.

    Raises:
        BadInputError: it is like no target of the package, or wants files that that does not have.
    """
    if own.like not in target_names():
        raise BadInputError(
            f"{source}: like is '{own.like}', it must be a target{meant(own.like, target_names())}"
        )
    like = described_target(own.like)
    given = {k: v for k, v in msgspec.structs.asdict(own).items() if v is not None and k != "like"}
    made = tuple(
        p for p in like.precisions if not precision_named(p).is_float and p not in own.refused
    )
    unknown = [p for p in own.precisions or () if p not in like.precisions]
    if unknown:
        raise BadInputError(
            f"{source}: there are no files of '{unknown[0]}' for a target like {own.like}"
            f"{meant(unknown[0], like.precisions)}"
        )
    whole = {"precisions": made, **given, "refused": {**like.refused, **own.refused}}
    return _checked(msgspec.structs.replace(like, **whole, name=name))


def target_names() -> list[str]:
    """Return the names of every target."""
    folder = files("edgedl.compress.targets")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )
