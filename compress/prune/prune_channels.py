"""The stage that removes whole channels, heads and hidden units."""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Annotated, ClassVar, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.estimate import Estimated, Work
from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.cuts.channel_groups import ChannelGroup, channel_groups
from edgedl.compress.graph.cuts.cut import cut_channels
from edgedl.compress.graph.cuts.exactness import first_difference
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import most_important, ranked_widths, uniform_widths
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.file_timer import milder_speedup
from edgedl.compress.latency.timing import Runtime, this_machine
from edgedl.compress.prune.importance import (
    Importance,
    batch_norm_scales,
    group_scores,
)
from edgedl.compress.prune.recorded_channels import in_blocks, read_kept, write_kept
from edgedl.compress.prune.speed import NetworkTimer, find_widths, seconds_of_search
from edgedl.compress.prune.trained_loss import known_loss, labelled_changes
from edgedl.compress.prune.wrong_groups import wrong_groups
from edgedl.compress.stage import MILDER, Found, Stage, recorded_lines, refuse_together
from edgedl.compress.state import (
    ZEROS,
    ModelState,
    NothingRemovedError,
    Phase,
    StageUndoneError,
    Trait,
)
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target, load_target
from edgedl.compress.training.check_training import check_label_loss
from edgedl.compress.training.training_data import choose_split
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import precision_named
from edgedl.runtime.task.task import TRAIN, Task, training_split

# Share that goes where nothing is said.
RATIO = 0.5


class PruneChannels(Stage, frozen=True, tag="prune_channels"):
    """Structured pruning: the network that remains is dense and smaller.

    Channels that only go together, over residual sums, concatenations, depthwise and grouped
    convolutions, squeeze-and-excitation and attention heads, are removed together. The network
    should be fine-tuned afterwards.

    Attributes:
        ratio: share to remove: of the channels of every group ("uniform"), or of the network's
            multiply-accumulates ("global"); null is a half, unless ``speedup`` is given.
        speedup: latency now over latency afterwards, measured on the runtime: channels go wherever
            they are, in the order of importance per millisecond.
        runtime: that the speed-up is measured on.
        precision: of the file that is timed.
        scope: every group alike, or the least important channels wherever they are; null is
            "uniform", unless ``speedup`` is given.
        importance: what says that a channel matters: "l1" and "l2" norms of all its weights, "lamp"
            (the l2 norm over that of the channels that would remain: a group that has lost many
            is spared), "batch_norm" scales, "taylor" (first-order change of the loss), or
            "random", the control.
        keep: groups that stay whole: paths of parameters, or wildcards.
        multiple: widths that change are multiples of it, and groups that are not wider stay
            whole; None takes what the kernels of the targets like, ``channel_multiple``.
        samples: training samples of "taylor".
        batch_size: samples per forward pass.
        seed: of "random", and of the samples drawn.
    """

    works_on: ClassVar[Phase] = Phase.TRAINED
    yields: ClassVar[Phase] = Phase.TRAINED
    undoes: ClassVar[frozenset[Trait]] = frozenset({ZEROS})

    ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    speedup: Annotated[float, Meta(gt=1)] | None = None
    runtime: Runtime = RUNTIMES[0]
    precision: Literal["float32", "int8"] = "float32"
    scope: Literal["uniform", "global"] | None = None
    importance: Importance = "lamp"
    keep: tuple[str, ...] = ()
    multiple: Annotated[int, Meta(ge=1)] | None = None
    samples: Annotated[int, Meta(ge=1)] = 512
    batch_size: Annotated[int, Meta(ge=1)] = 64
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        """Refuse two wishes at once.

        Raises:
            BadInputError: there is speedup beside ratio or scope.
        """
        super().__post_init__()
        refuse_together("prune_channels", {"ratio": self.ratio, "speedup": self.speedup})
        refuse_together("prune_channels", {"scope": self.scope, "speedup": self.speedup})

    @property
    def _multiple(self) -> int:
        """Return the number that widths are multiples of; by itself, a stage has one target."""
        if self.multiple is not None:
            return self.multiple
        return load_target(self.runtime).channel_multiple

    def milder(self) -> "PruneChannels":
        """Remove 0.7 of the share, or ask for 0.7 of the time that is to be saved."""
        if self.speedup is not None:
            return msgspec.structs.replace(self, speedup=milder_speedup(self.speedup))
        return msgspec.structs.replace(self, ratio=round((self.ratio or RATIO) * MILDER, 4))

    def fit(
        self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()
    ) -> "PruneChannels":
        """Take widths that the kernels of every target like.

        Where nothing is said: by latency, multiples of what the timed runtime likes, else of the
        most that any target likes.
        """
        if self.multiple is not None or self.speedup is not None:
            return self
        most = max(target.channel_multiple for target in targets)
        return msgspec.structs.replace(self, multiple=most)

    def splits(self, task: Task) -> frozenset[str]:
        """Return what it reads: training data for the loss."""
        trained = {training_split(task)} if self.importance == "taylor" else set()
        return super().splits(task) | trained

    def machine(self, device: torch.device) -> str | None:
        """Return what widths by latency depend on."""
        return None if self.speedup is None else this_machine()

    def check_subject(self, subject: Subject) -> None:
        """Try the loss whose changes are the importance.

        Raises:
            BadInputError: there is none, or it cannot be used.
        """
        if self.importance == "taylor":
            check_label_loss(subject, known_loss(subject))

    def work(self, state: ModelState) -> Work | None:
        """Say that fewer samples are not less work."""
        return None

    def estimate(self, state: ModelState) -> Estimated:
        """Estimate the time of the search by latency, or do all of it."""
        if self.speedup is None:
            return super().estimate(state)
        target, precision = load_target(self.runtime), precision_named(self.precision)
        seconds = seconds_of_search(state, target, precision, self._multiple)
        return Estimated(seconds, state)

    @classmethod
    def rebuild(cls, graph: fx.GraphModule, entry: HistoryEntry) -> fx.GraphModule:
        """Return the graph with the channels that stayed.

        Raises:
            BadInputError: it is not that of the module that was pruned.
        """
        axes = TensorAxes(graph)
        by_name = {group.name: group.axis for group in channel_groups(axes)}
        kept = dict(read_kept(line, by_name) for line in recorded_lines(entry, "kept"))
        return cut_channels(axes, kept)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state of the smaller network; its history says what stays of each group.

        Raises:
            BadInputError: a name in ``keep`` matches nothing, or the data that the importance
                needs is not there.
            StageUndoneError: no channel of the network can be removed.
        """
        axes, inputs = TensorAxes(state.trainable_graph()), state.subject.example_inputs()
        every = channel_groups(axes)
        wrong = wrong_groups(axes, every, inputs)
        in_the_way = tuple(dict.fromkeys([*axes.in_the_way(), *wrong.values()]))
        for reason in in_the_way:
            state.progress.note(f"prune_channels: {reason}, so channels around it are not pruned")
        groups = self._chosen(every, wrong, axes.graph, in_the_way)
        split = choose_split(state, self.name) if self.importance == "taylor" else TRAIN
        scores = group_scores(
            axes,
            groups,
            self.importance,
            lambda: labelled_changes(
                axes.graph, state.subject, split, self.samples, self.batch_size, self.seed
            ),
            self.seed,
        )
        counter = MacCounter(axes)
        widths, found = self._widths(state, axes, groups, scores, counter)
        kept = {
            g.axis: most_important(scores[g.axis], widths[g.axis])
            for g in groups
            if widths[g.axis] < g.size
        }
        if not kept:
            raise NothingRemovedError(
                f"nothing would be removed in multiples of {self._multiple} channels: raise ratio "
                "or speedup, or lower multiple"
            )
        cut = cut_channels(axes, kept)
        reason = first_difference(axes, kept, cut, inputs)
        if reason:
            raise StageUndoneError(f"without the channels, {reason}")
        return state.with_network(TracedNetwork(cut)), {
            "multiple": self._multiple,
            "whole": tuple(g.name for g in every if g not in groups),
            "not_followed": in_the_way,
            "kept": tuple(write_kept(g, kept[g.axis]) for g in groups if g.axis in kept),
            "macs_before": counter.count({}),
            "macs_after": counter.count(widths),
            **in_blocks(groups, widths, counter, self.runtime),
            **found,
            **({} if split == TRAIN else {"split": split}),
        }

    def _widths(
        self,
        state: ModelState,
        axes: TensorAxes,
        groups: list[ChannelGroup],
        scores: dict[Axis, Tensor],
        counter: MacCounter,
    ) -> tuple[dict[Axis, int], dict[str, Setting]]:
        """Return the widths of the groups, and how they were found."""
        if self.speedup is not None:
            timer = NetworkTimer(
                state, axes, load_target(self.runtime), precision_named(self.precision)
            )
            found = find_widths(groups, scores, timer, self.speedup, self._multiple)
            latency = found.latency
            return found.widths, {
                "latency_ratio": latency.value,
                "latency_ratio_ci95": (f"{latency.lo:.4f}", f"{latency.hi:.4f}"),
                "price_of_a_channel": tuple(f"{n}={p:.5f}" for n, p in found.savings.items()),
                "prices_cached": found.cached,
                "latency_ratio_narrowest": found.narrowest.value,
            }
        ratio, scope = self.ratio or RATIO, self.scope or "uniform"
        said: dict[str, Setting] = {"ratio": ratio, "scope": scope}
        if scope == "uniform":
            return uniform_widths(groups, ratio, self._multiple), said
        return ranked_widths(groups, scores, counter.count, ratio, self._multiple), said

    def _chosen(
        self,
        groups: list[ChannelGroup],
        wrong: Collection[str],
        graph: fx.GraphModule,
        in_the_way: tuple[str, ...],
    ) -> list[ChannelGroup]:
        """Leave out what shall stay whole."""
        for pattern in self.keep:
            if not any(_has(group, pattern) for group in groups):
                raise BadInputError(
                    f"keep names '{pattern}', which is no parameter that could be pruned"
                )
        right = [g for g in groups if g.name not in wrong]
        chosen = [g for g in right if not any(_has(g, pattern) for pattern in self.keep)]
        if right and not chosen:
            raise BadInputError("there is nothing to prune: keep names all groups")
        if not chosen:
            reasons = "; ".join(in_the_way) or "no channel lies between two layers"
            raise StageUndoneError(f"there is nothing to prune: {reasons}")
        if self.importance != "batch_norm":
            return chosen
        scales = batch_norm_scales(graph)
        scored = [g for g in chosen if any(path in scales for path, _ in g.places)]
        if not scored:
            raise BadInputError(
                "there is nothing to prune: importance 'batch_norm' says nothing of channels that "
                "no batch norm follows, take another"
            )
        return scored


def _has(group: ChannelGroup, pattern: str) -> bool:
    return any(fnmatch(path, pattern) or path.startswith(f"{pattern}.") for path, _ in group.places)
