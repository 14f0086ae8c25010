"""A student and its teacher, compared at values inside both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.compress.distill.inner_values import with_inner_values
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.training.distances import (
    attention_distance,
    hint_distance,
    relational_distance,
)
from edgedl.compress.training.task_batches import Targets
from edgedl.runtime.errors import BadInputError

FeatureLoss = Literal["none", "projection", "attention", "relational"]
OutputLoss = Callable[[tuple[Tensor, ...], Targets], Tensor]

_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "projection": hint_distance,
    "attention": attention_distance,
    "relational": relational_distance,
}


class ChannelProjection(nn.Module):
    """A linear map of one axis: a 1x1 convolution where that is the channels of pictures.

    Attributes:
        weight: [wanted, given].
        bias: [wanted].
    """

    def __init__(self, axis: int, given: int, wanted: int, generator: torch.Generator) -> None:
        """Draw the weights as torch's own layers do, from a generator of their own."""
        super().__init__()
        self._axis = axis
        bound = given**-0.5
        self.weight = nn.Parameter(torch.empty(wanted, given))
        self.bias = nn.Parameter(torch.empty(wanted))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, ...] with another width of the axis."""
        moved = x.movedim(self._axis, -1)
        return F.linear(moved, self.weight, self.bias).movedim(-1, self._axis)


class Student(nn.Module):
    """A network with the projections that are trained beside it, and thrown away after.

    Attributes:
        network: returns outputs and one feature per projection.
        projections: an identity where the teacher's feature is as wide.
    """

    def __init__(self, network: TracedNetwork, projections: list[nn.Module]) -> None:
        """Take both."""
        super().__init__()
        self.network = network
        self.projections = nn.ModuleList(projections)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, then the projected features."""
        values = self.network(*inputs)
        outputs = len(values) - len(self.projections)
        features = zip(self.projections, values[outputs:], strict=True)
        return (*values[:outputs], *(project(x) for project, x in features))


@dataclass(frozen=True)
class FeatureMatching:
    """What to train in place of a network so that its features follow a teacher's.

    Attributes:
        student: shares its parameters with the network; returns outputs and features.
        teacher: returns the same of the teacher.
        features: how many.
        distance: of two features.
    """

    student: Student
    teacher: TracedNetwork
    features: int
    distance: Callable[[Tensor, Tensor], Tensor]

    def added_to(self, loss: OutputLoss, weight: float) -> OutputLoss:
        """Return a loss of the outputs plus ``weight`` times the distances of all features."""

        def total(values: tuple[Tensor, ...], targets: Targets) -> Tensor:
            outputs = len(values) - self.features
            taught = targets._replace(teacher=targets.teacher[:outputs])
            pairs = zip(values[outputs:], targets.teacher[outputs:], strict=True)
            apart = torch.stack([self.distance(own, wanted) for own, wanted in pairs]).sum()
            return loss(values[:outputs], taught) + weight * apart

        return total


def match_features(
    network: TracedNetwork,
    teacher: nn.Module,
    inputs: tuple[Tensor, ...],
    paths: tuple[str, ...],
    kind: FeatureLoss,
    seed: int,
) -> FeatureMatching:
    """Pair a network with its teacher at modules of the same names.

    Args:
        network: the student, in evaluation mode.
        teacher: a module that torch can export; it is copied.
        inputs: example inputs of both, one tensor [N, ...] per argument.
        paths: of modules that both have.
        kind: which distance; "projection" learns a linear map where the teacher's channels are
            more or fewer.
        seed: of the projections' first weights.

    Raises:
        BadInputError: the teacher is a file, a name matches nothing in the student or in the
            teacher, or their features cannot be compared.
        TraceError: the teacher cannot be traced.
    """
    if not any(True for _ in teacher.parameters()):
        raise BadInputError(
            "features are compared inside of networks, and the teacher only answers, as the file "
            "of a bundle does: take a teacher with weights, or leave features out"
        )
    own = with_inner_values(network, paths, "network")
    wanted = with_inner_values(TracedNetwork(export_graph(teacher, inputs)), paths, "teacher")
    with torch.no_grad():
        shapes = [
            (tuple(a.shape), tuple(b.shape))
            for a, b in zip(_last(own, inputs, paths), _last(wanted, inputs, paths), strict=True)
        ]
    generator = torch.Generator().manual_seed(seed)
    projections: list[nn.Module] = []
    for path, (given, aim) in zip(paths, shapes, strict=True):
        _check_comparable(path, given, aim, kind, len(inputs[0]))
        wider = kind == "projection" and given != aim
        projections.append(_projection(path, given, aim, generator) if wider else nn.Identity())
    return FeatureMatching(Student(own, projections), wanted, len(paths), _DISTANCES[kind])


def _last(
    network: TracedNetwork, inputs: tuple[Tensor, ...], paths: tuple[str, ...]
) -> tuple[Tensor, ...]:
    features: tuple[Tensor, ...] = network(*inputs)[-len(paths) :]
    return features


def _check_comparable(
    path: str, given: tuple[int, ...], aim: tuple[int, ...], kind: FeatureLoss, batch: int
) -> None:
    """Refuse maps of other sizes, and values that are no maps where attention needs them."""
    if given[:1] != (batch,) or aim[:1] != (batch,):
        raise BadInputError(
            f"the values of '{path}' are {list(given)} for {batch} samples: their first axis must "
            "be the samples; name another module"
        )
    if kind != "attention":
        return
    if len(given) != 4 or len(aim) != 4:
        raise BadInputError(
            f"feature_loss 'attention' compares maps [B, C, H, W], the values of '{path}' are "
            f"{_written(given)}: use 'projection' or 'relational'"
        )
    if given[2:] != aim[2:]:
        raise BadInputError(_sizes_differ(path, given, aim))


def _projection(
    path: str, given: tuple[int, ...], aim: tuple[int, ...], generator: torch.Generator
) -> ChannelProjection:
    """Project the one axis whose sizes differ: 1, or the last of values [B, L, C].

    Raises:
        BadInputError: another axis differs, or several.
    """
    if len(given) == len(aim):
        differ = [a for a in range(1, len(given)) if given[a] != aim[a]]
        if differ == [1] or (differ == [2] and len(given) == 3):
            (axis,) = differ
            return ChannelProjection(axis, given[axis], aim[axis], generator)
    raise BadInputError(_sizes_differ(path, given, aim))


def _sizes_differ(path: str, given: tuple[int, ...], aim: tuple[int, ...]) -> str:
    return (
        f"the values of '{path}' are {_written(given)} in the network and {_written(aim)} in its "
        "teacher: only the number of channels may differ; name a module where the sizes agree, "
        "or use feature_loss 'relational'"
    )


def _written(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(['B', *map(str, shape[1:])])}]"
