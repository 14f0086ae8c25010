"""What torch looks up again in every conversion, looked up once.

A tenth to a fifth of the time of a small network's conversion. A torch that has this function
elsewhere makes the same files and takes that time.
"""

from functools import cache
from typing import Any

import torch

# Where torch's own modules have the function by name.
_USERS = ("exported_program", "decomp_utils")
_NAME = "_collect_all_valid_cia_ops"


@cache
def convert_faster() -> None:
    """Change torch's decomposition, once in a process; its copies have what was looked up."""
    users = [m for m in (getattr(torch.export, user, None) for user in _USERS) if hasattr(m, _NAME)]
    if users:
        composite_operators = _CompositeOperators(getattr(users[0], _NAME))
        composite_operators()
        for module in users:
            setattr(module, _NAME, composite_operators)


class _CompositeOperators:
    """The operators that are composed of others, of all libraries, collected once."""

    def __init__(self, collect: Any) -> None:
        self._collect = collect
        self._registered = 0
        self._found: set[Any] = set()

    def __call__(self) -> set[Any]:
        # A library that registers its own later is asked again.
        registered = len(torch._C._dispatch_get_all_op_names())
        if registered != self._registered:
            self._found, self._registered = self._collect(), registered
        return self._found
