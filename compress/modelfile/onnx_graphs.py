"""The graphs of an ONNX file: its own, and those in the branches and bodies of its operators."""

from collections.abc import Iterator

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
        own = {value.name for value in inner.input} | {t.name for t in inner.initializer}
        own.update(name for part in inner.node for name in part.output)
        read = {name for part in inner.node for name in names_read(part)}
        yield from sorted((read | {value.name for value in inner.output}) - own)
