"""What an importance of channels is worth: the same speed-up, by each of them and at random.

Run as ``python -m benchmarks.training.importance [SUBJECT [SPEEDUP [EPOCHS]]]``.
Channels go until the float32 file on ONNX Runtime is SPEEDUP times faster; the network is trained
on for EPOCHS epochs, taught by the whole one, and scored in torch on the test split. Random is the
control: what an importance is better by, it brings. One that the network has no use for is left
out.
"""

import sys
from typing import get_args

import torch

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.graph.run import count_parameters
from edgedl.compress.prune.importance import Importance
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.state import begin
from edgedl.compress.subject.score import score_module
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.task.task import Scores
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

CONTROL: Importance = "random"
MULTIPLE = 8
HEADER = ["importance", "MACs", "parameters", "latency ratio", "untrained %", "score %"]


def main(reference: str, speedup: float, epochs: int) -> None:
    """Print a row for every importance, and how far each is above the control."""
    torch.set_num_threads(1)
    subject = find_subject(reference)
    whole = score_module(subject.module.eval(), subject.task)
    print(f"{reference}: {100 * whole.mean():.2f} %, {count_parameters(subject.module)} parameters")
    scores: dict[Importance, Scores] = {}
    rows: dict[Importance, list[str]] = {}
    for importance in (CONTROL, *(i for i in get_args(Importance) if i != CONTROL)):
        stage = PruneChannels(speedup=speedup, importance=importance, multiple=MULTIPLE)
        try:
            pruned = stage.apply(begin(subject))
        except BadInputError as error:
            print(f"{importance}: {error}", file=sys.stderr)
            continue
        settings = pruned.history[-1].settings
        untrained = score_module(pruned.subject.module.eval(), subject.task)
        trained = FineTune(epochs=epochs, distil=0.9, temperature=2.0).apply(pruned)
        scores[importance] = score_module(trained.subject.module.eval(), subject.task)
        rows[importance] = [
            importance,
            str(settings["macs_after"]),
            str(count_parameters(pruned.subject.module)),
            f"{settings['latency_ratio']:.3f}",
            f"{100 * untrained.mean():.2f}",
            f"{100 * scores[importance].mean():.2f}",
            _over(scores[CONTROL], scores[importance]) if importance != CONTROL else "",
        ]
        print(" | ".join(rows[importance]), file=sys.stderr, flush=True)
    print(to_markdown([*HEADER, "over random, points [95 %]"], list(rows.values())))


def _over(control: Scores, found: Scores) -> str:
    gain = paired_drop(found, control)
    return f"{100 * gain.value:+.2f} [{100 * gain.lo:+.2f}, {100 * gain.hi:+.2f}]"


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(given.get(0, "resnet8-cifar10"), float(given.get(1, 1.5)), int(given.get(2, 3)))
