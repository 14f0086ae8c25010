"""How fetching and reading data sets tell what they are doing."""

from collections.abc import Callable

Progress = Callable[[str], None]
