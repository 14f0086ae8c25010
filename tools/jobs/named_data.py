"""A module and the name of its data: what becomes of them."""

from torch import nn

from edgedl.compress.subject.given_task import GivenTask
from edgedl.compress.subject.subject import Subject
from edgedl.compress.subject.unwrap import unwrap
from edgedl.runtime.task.sources.open_source import open_source


def subject_of(module: nn.Module, data: str, name: str = "") -> Subject:
    """Return the subject of a module and of data by name.

    Labels and outputs decide which score suits; what was assumed stands in the task's notes.

    Args:
        module: trained, on the CPU.
        data: see ``open_source``.
        name: of the network; its class if nothing is said.

    Raises:
        BadInputError: there is no such data, or it does not fit the module.
    """
    source = open_source(data)
    module = unwrap(module).eval()
    task = GivenTask(
        name or type(module).__name__,
        module,
        source.splits,
        classes=source.classes,
        preprocessing=source.preprocessing,
    )
    task.notes = (*source.notes, *task.notes)
    return Subject(task.name, module, task, data=data)
