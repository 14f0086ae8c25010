"""What a teacher brings: a pruned network, trained on with and without one.

Run as ``python -m benchmarks.training.distillation
[SUBJECT [TEACHER [EPOCHS [SAMPLES [THERE]]]]]``; SAMPLES are those of an epoch, THERE all there
are to train on (the data set's if nothing is said). Half of the channels go; both
students train from the same weights on the same pictures, three times with different seeds.
"""

import sys
from dataclasses import replace

import msgspec
import numpy as np
import torch

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.score import score_module
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.task.task import ArrayTask, Samples, Scores, Task
from edgedl.tools.jobs.subjects import find_subject

# Seed 0 chose the temperature among 1, 2 and 4.
SEEDS = (1, 2, 3)
TEMPERATURE = 2.0
MULTIPLE = 8


def main() -> None:
    """Print the scores of every seed, and what the teacher brings."""
    torch.set_num_threads(1)
    given = dict(enumerate(sys.argv[1:]))
    subject = find_subject(given.get(0, "resnet8-cifar10"))
    teacher = find_subject(given.get(1, "resnet20-cifar10"))
    subject = replace(subject, teachers=(teacher.module.eval(),))
    if 4 in given:
        subject = replace(subject, task=with_few(subject.task, int(given[4])))
    state = begin(subject)
    pruned = PruneChannels(ratio=0.5, multiple=MULTIPLE).apply(state)
    plain = FineTune(
        epochs=int(given.get(2, 10)),
        samples=int(given.get(3, 25_000)),
        distil=0.0,
        temperature=TEMPERATURE,
        mixed_precision=True,
    )
    print(f"{subject.name}: {_percent(score_module(subject.module.eval(), subject.task))}")
    print(f"{teacher.name}, the teacher: {_percent(score_module(teacher.module, subject.task))}")
    gains = []
    for seed in SEEDS:
        alone = _scores(msgspec.structs.replace(plain, seed=seed), pruned)
        taught = _scores(msgspec.structs.replace(plain, seed=seed, distil=0.9), pruned)
        gains.append(taught - alone)
        scores = f"alone {_percent(alone)}, taught {_percent(taught)}"
        print(f"seed {seed}: {scores}, gain {_gain(gains[-1])}")
    print(f"mean of the seeds, paired by sample: {_gain(np.mean(gains, axis=0))}")


def with_few(task: Task, count: int) -> ArrayTask:
    """Return a task over arrays with its first ``count`` training samples alone."""
    if not isinstance(task, ArrayTask):
        raise BadInputError(f"the samples of task '{task.name}' are not arrays")
    whole = task.splits["train"]

    def few() -> Samples:
        inputs, labels = whole()
        return Samples(tuple(x[:count] for x in inputs), labels[:count])

    return replace(task, splits={**task.splits, "train": few})


def _scores(stage: FineTune, pruned: ModelState) -> Scores:
    return score_module(stage.apply(pruned).subject.module.eval(), pruned.subject.task)


def _percent(scores: Scores) -> str:
    return f"{100 * scores.mean():.2f} %"


def _gain(gains: Scores) -> str:
    found = paired_drop(gains, np.zeros_like(gains))
    return f"{100 * found.value:.2f} [{100 * found.lo:.2f}, {100 * found.hi:.2f}] points"


if __name__ == "__main__":
    main()
