"""Resizing of pictures and series."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.values import NotImportedError, Value, numbers_of, tensor_of

Function = Callable[..., Any]


def _resize(node: Node, x: Value, *given: Value | None) -> Tensor:
    y, mode = tensor_of(x), node.get("mode", "nearest")
    scales, sizes = _resize_to(node, given)
    where = node.get("coordinate_transformation_mode", "half_pixel")
    if node.operator == "Upsample" or (len(given) == 1 and node.opset < 11):
        where = "asymmetric"
    if node.get("axes", None) is not None or node.get("antialias", 0):
        raise NotImportedError("it has axes of its own, or antialias")
    if y.ndim not in (3, 4) or (sizes is None and scales is None):
        raise NotImportedError(f"it resizes a tensor of {y.ndim} axes")
    lead = (scales or sizes or [])[:2]
    if scales is not None and lead != [1.0, 1.0]:
        raise NotImportedError("it resizes the batch or the channels")
    if sizes is not None:
        target: tuple[Any, ...] = tuple(int(n) for n in sizes[2:])
    else:
        factors = (scales or [])[2:]
        target = tuple(int(n * s) for n, s in zip(y.shape[2:], factors, strict=True))
        exact = all(n * s == t for n, s, t in zip(y.shape[2:], factors, target, strict=True))
        if not exact and mode != "nearest":
            raise NotImportedError("its factors give no whole sizes")
    if mode == "nearest":
        return _nearest(node, y, target, where)
    return _interpolated(node, y, target, where)


def _interpolated(node: Node, x: Tensor, target: tuple[Any, ...], where: str) -> Tensor:
    """Resize by linear or cubic interpolation."""
    mode = node.get("mode", "nearest")
    kinds = {("linear", 3): "linear", ("linear", 4): "bilinear", ("cubic", 4): "bicubic"}
    kind = kinds.get((mode, x.ndim))
    if kind is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImportedError(f"it resizes by {mode} with {where}")
    if where == "pytorch_half_pixel" and 1 in target:
        raise NotImportedError("it resizes to a size of 1 with pytorch_half_pixel")
    if mode == "cubic" and node.get("cubic_coeff_a", -0.75) != -0.75:
        raise NotImportedError("its cubic_coeff_a is not -0.75")
    return F.interpolate(x, size=target, mode=kind, align_corners=where == "align_corners")


def _resize_to(
    node: Node, given: tuple[Value | None, ...]
) -> tuple[list[float] | None, list[float] | None]:
    """Return the factors, or the sizes, that a node resizes to."""
    if "scales" in node.attributes:
        return list(node.get("scales", [])), None
    if len(given) == 1:
        return numbers_of(given[0], "factors"), None  # type: ignore[arg-type]
    sizes = given[2] if len(given) > 2 else None
    if sizes is not None:
        return None, numbers_of(sizes, "sizes")
    factors = given[1] if len(given) > 1 else None
    return (None, None) if factors is None else (numbers_of(factors, "factors"), None)


def _nearest(node: Node, x: Tensor, target: tuple[Any, ...], where: str) -> Tensor:
    """Resize by the nearest value; torch's own where its rule, the left edge down, is meant."""
    rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.operator == "Upsample" or node.opset < 11:
        where, rounding = "asymmetric", "floor"
    places = [_places(n, t, where, rounding) for n, t in zip(x.shape[2:], target, strict=True)]
    lower = [[int(i * n / t) for i in range(t)] for n, t in zip(x.shape[2:], target, strict=True)]
    if places == lower:
        return F.interpolate(x, size=target, mode="nearest")
    for axis, chosen in enumerate(places, start=2):
        x = torch.index_select(x, axis, torch.tensor(chosen))
    return x


def _places(size: Any, target: int, where: str, rounding: str) -> list[int]:
    """Return from which value each of the resized ones is taken.

    Raises:
        NotImportedError: the size is free, or a rule is not known.
    """
    if not isinstance(size, int):
        raise NotImportedError("it resizes a height or width that is free")
    index = np.arange(target, dtype=np.float64)
    scale = target / size
    rules = {
        "half_pixel": (index + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (index + 0.5) / scale - 0.5 if target > 1 else index * 0,
        "asymmetric": index / scale,
        "align_corners": index * (size - 1) / max(1, target - 1),
    }
    roundings: dict[str, Callable[[Any], Any]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    }
    if where not in rules or rounding not in roundings:
        raise NotImportedError(f"it resizes by nearest with {where} and {rounding}")
    found = np.clip(roundings[rounding](rules[where]), 0, size - 1)
    return [int(place) for place in found]


OPERATORS: dict[str, Function] = {"Resize": _resize, "Upsample": _resize}
