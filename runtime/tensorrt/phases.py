"""How far a build is, by the nested phases that NVIDIA's builder tells of."""


class Phases:
    """Adds nested phases up to one share.

    >>> phases = Phases()
    >>> phases.start("build", None, 2)
    >>> phases.start("choose kernels", "build", 10)
    >>> phases.step("choose kernels", 4)
    >>> phases.share
    0.25
    >>> phases.finish("choose kernels")
    >>> phases.step("build", 0)
    >>> phases.share
    0.5
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parents: dict[str, str | None] = {}
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._most = 0.0

    @property
    def share(self) -> float:
        """The share of the work that is done, 0 to 1; it never falls."""
        tops = [name for name, parent in self._parents.items() if parent not in self._parents]
        found = max((self._share(name) for name in tops), default=0.0)
        self._most = max(self._most, found)
        return self._most

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of some steps inside another one."""
        self._parents[name], self._steps[name], self._done[name] = parent, max(1, steps), 0

    def step(self, name: str, index: int) -> None:
        """End the step of that index, from 0."""
        if name in self._done:
            self._done[name] = min(self._steps[name], index + 1)

    def finish(self, name: str) -> None:
        """End a phase; its parent counts it as a step of its own."""
        for known in (self._parents, self._steps, self._done):
            known.pop(name, None)

    def _share(self, name: str) -> float:
        inside = [self._share(n) for n, parent in self._parents.items() if parent == name]
        return min(1.0, (self._done[name] + max(inside, default=0.0)) / self._steps[name])
