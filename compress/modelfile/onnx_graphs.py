"""The graphs of an ONNX file: its own, and those in the branches and bodies of its operators."""

from collections.abc import Iterator, Mapping

import onnx


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all graphs inside it, the outer before the inner."""
    yield graph
    for node in graph.node:
        for _, inner in graphs_inside(node):
            yield from every_graph(inner)


def graphs_inside(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the graphs that an operator runs, each with the name of its attribute."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for index, inner in enumerate(attribute.graphs):
            yield f"{attribute.name}_{index}", inner


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that an operator reads, those that its branches take from outside too."""
    yield from (name for name in node.input if name)
    for _, inner in graphs_inside(node):
        own = _made_inside(inner)
        read = {name for part in inner.node for name in names_read(part)}
        yield from sorted((read | {value.name for value in inner.output}) - own)


def rename_reads(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let an operator read other values; its branches, too, where they take them from outside."""
    for index, name in enumerate(node.input):
        if name in names:
            node.input[index] = names[name]
    for _, inner in graphs_inside(node):
        own = _made_inside(inner)
        outer = {name: new for name, new in names.items() if name not in own}
        for part in inner.node:
            rename_reads(part, outer)
        for value in inner.output:
            value.name = outer.get(value.name, value.name)


def _made_inside(graph: onnx.GraphProto) -> set[str]:
    own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    return own.union(*(node.output for node in graph.node))
