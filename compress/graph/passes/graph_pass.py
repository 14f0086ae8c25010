"""What a pass over the graph is, in which order passes stand, and how they walk a graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.values import record_value, value_of

# Key in the meta of a node that a pass made -> the pass's name.
MADE_BY = "pass"


class Pass(ABC):
    """One rewrite of the graph, exact up to float rounding. Its docstring says from what to what.

    Attributes:
        requires: passes that must have been over the graph before this one.
        operators: overloads that it looks at.
        gone: overloads of which it leaves none.
        takes_name: whether what takes a node's place takes its name, by which users and tables know
            it.
    """

    requires: ClassVar[tuple[type["Pass"], ...]] = ()
    operators: ClassVar[Collection[Any]] = frozenset()
    gone: ClassVar[Collection[Any]] = frozenset()
    takes_name: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in errors and in the meta of the nodes that it makes."""
        return type(self).__name__

    def looks_at(self, node: fx.Node) -> bool:
        """Say whether a node is of the kind that the pass rewrites."""
        return node.target in self.operators

    @abstractmethod
    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one node in place, if it is what the pass is for.

        Returns:
            The node that takes its place, which others read then; itself if it was changed, or is
            no longer read; None if nothing was done.
        """

    def __call__(self, module: fx.GraphModule) -> None:
        """Rewrite a whole graph in place."""
        walk(module, (self,))

    def ensures(self, module: fx.GraphModule) -> list[str]:
        """Return the names of nodes that break what holds behind the pass: of none.

        There is no operator of ``gone``, and nothing that the pass would rewrite another time.
        """
        copy = copy_graph(module)
        left = []
        for node in list(copy.graph.nodes):
            name, gone = node.name, node.target in self.gone
            if (self.looks_at(node) and self.rewrite(copy, node) is not None) or gone:
                left.append(name)
        return left


Order = tuple[tuple[Pass, ...], ...]
# Is told of the pass that has rewritten, and the name of the node.
Watch = Callable[[Pass, str], None]


def in_order(*walks: tuple[Pass, ...]) -> Order:
    """Return passes in the order in which they are applied; those of a tuple share a walk.

    Raises:
        ValueError: a pass stands before one that it requires.
    """
    before: set[type[Pass]] = set()
    for step in (step for passes in walks for step in passes):
        missing = [required.__name__ for required in step.requires if required not in before]
        if missing:
            raise ValueError(f"{step.name} must stand behind {', '.join(missing)}")
        before.add(type(step))
    return walks


def walk(module: fx.GraphModule, passes: tuple[Pass, ...], watch: Watch | None = None) -> None:
    """Rewrite a graph from its inputs to its outputs, in place, and drop what nobody reads.

    Every node is given to the passes in turn. What a pass makes of it is given to those behind
    that pass, and remembers in its meta which one made it. Where the shape of what takes a node's
    place is not known, it is the node's.
    """
    known = set(module.graph.nodes)
    for node in list(module.graph.nodes):
        for step in passes:
            name = node.name
            result = step.rewrite(module, node) if step.looks_at(node) else None
            if result is None:
                continue
            made = [n for n in module.graph.nodes if n not in known]
            known.update(made)
            for new in made:
                new.meta[MADE_BY] = step.name
            if result in made and value_of(result) is None:
                record_value(result, value_of(node))
            if result is not node:
                node.replace_all_uses_with(result)
                module.graph.erase_node(node)
            if step.takes_name:
                result.name = name
            if watch is not None:
                watch(step, name)
            if result not in made:
                break
            node = result
    module.graph.eliminate_dead_code()
