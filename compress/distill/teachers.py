"""Who teaches: the network a recipe began with, another one, or several at once."""

import torch
from torch import Tensor, nn

from edgedl.compress.errors import first_line
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.errors import BadInputError


class Ensemble(nn.Module):
    """Several networks as one teacher: the mean of what they say.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 1
    (the average of an ensemble's predictions as the soft targets).

    Attributes:
        members: the networks.
        temperature: at which the probabilities are averaged; None takes the mean of the outputs,
            for tasks without classes.
    """

    def __init__(self, members: tuple[nn.Module, ...], temperature: float | None) -> None:
        """Take networks of the same inputs and outputs.

        Raises:
            BadInputError: there are none.
        """
        super().__init__()
        if not members:
            raise BadInputError("an ensemble needs at least one network")
        self.members = nn.ModuleList(members)
        self.temperature = temperature

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor [B, ...] per output.

        With a temperature T the first is T * log p [B, K], logits whose softmax at T is p, the
        mean of the members' probabilities at T; all others are means.
        """
        answers = [as_tuple(member(*inputs)) for member in self.members]
        outputs = [torch.stack(column) for column in zip(*answers, strict=True)]
        means = tuple(y.mean(0) for y in outputs)
        if self.temperature is None:
            return means
        logs = torch.log_softmax(outputs[0] / self.temperature, 2)
        mean = torch.logsumexp(logs, 0) - torch.log(logs.new_tensor(float(len(logs))))
        return (mean * self.temperature, *means[1:])


def one_teacher(
    teachers: tuple[nn.Module, ...],
    student: nn.Module,
    inputs: tuple[Tensor, ...],
    temperature: float | None,
) -> nn.Module:
    """Return a teacher in evaluation mode: the only one, or the ensemble of several.

    Args:
        teachers: at least one.
        student: in evaluation mode; the teachers' outputs must have its shapes.
        inputs: example inputs of all, one tensor [N, ...] per argument.
        temperature: of the ensemble; None for tasks without classes.

    Raises:
        BadInputError: a teacher does not take the inputs, or answers for other classes.
    """
    with torch.no_grad():
        expected = [y.shape for y in as_tuple(student(*inputs))]
    for index, teacher in enumerate(teachers):
        name = "the teacher" if len(teachers) == 1 else f"teacher {index}"
        try:
            with torch.no_grad():
                found = [y.shape for y in as_tuple(teacher.eval()(*inputs))]
        except Exception as error:
            # The module is the user's own, and raises whatever it likes.
            raise BadInputError(
                f"{name} does not take the inputs of the network, "
                f"{[list(x.shape) for x in inputs]}: {first_line(error)}"
            ) from error
        _check_outputs(name, found, expected, temperature is not None)
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers, temperature).eval()


def _check_outputs(
    name: str, found: list[torch.Size], expected: list[torch.Size], classes: bool
) -> None:
    if found == expected:
        return
    if classes and len(found[0]) == len(expected[0]) == 2 and found[0][1] != expected[0][1]:
        raise BadInputError(
            f"{name} has {found[0][1]} classes, the network for {expected[0][1]}: "
            "a teacher must know the same classes in the same order"
        )
    raise BadInputError(
        f"{name} returns {[list(s) for s in found]}, the network {[list(s) for s in expected]}: "
        "their outputs must have the same shapes"
    )
