"""What a user wants compressed, in objects."""

from dataclasses import dataclass

from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target
from edgedl.tools.terminal.parameter_types import SEARCH_MINUTES


@dataclass(frozen=True)
class Job:
    """What is compressed, and how.

    Attributes:
        subject: network, data and score, with its teachers and its device.
        targets: runtimes.
        recipe: None is the one that suits the network.
        keep_float: layers that stay float32.
        named: what commands call the subject; "" where it has no name there.
        search_minutes: that the recipes may take which are tried for a budget.
    """

    subject: Subject
    targets: tuple[Target, ...]
    recipe: Recipe | None = None
    keep_float: tuple[str, ...] = ()
    named: str = ""
    search_minutes: float = SEARCH_MINUTES
