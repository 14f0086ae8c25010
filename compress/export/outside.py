"""Networks whose inputs come normalised: that is done outside of the files."""

from dataclasses import dataclass, replace

from edgedl.compress.encodings.encodings import Encodings
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.passes.fold.input_norm import InputNorm, take_out_input_norms
from edgedl.compress.state import ModelState


@dataclass(frozen=True)
class Outside:
    """A model state without normalisations of its inputs.

    Attributes:
        state: what files are made of.
        norms: what is computed outside of them, for each input; None where nothing is.
    """

    state: ModelState
    norms: tuple[InputNorm | None, ...]

    @classmethod
    def of(cls, state: ModelState) -> "Outside":
        """Take the normalisations out of every graph that files are made of."""
        graph, found = take_out_input_norms(state.graph)
        inputs = [node.name for node in state.graph.graph.find_nodes(op="placeholder")]
        without = replace(state, graph=graph)
        if state.quantized is not None:
            quantized, norms = take_out_input_norms(state.quantized.graph)
            encodings = _ranges_of_inputs(state.quantized.encodings, norms)
            without = replace(without, quantized=QuantizedNetwork(quantized, encodings))
        if state.weights is not None:
            weights, _ = take_out_input_norms(state.weights.graph)
            without = replace(without, weights=replace(state.weights, graph=weights))
        return cls(without, tuple(found.get(name) for name in inputs))

    def describe(self) -> str:
        """Return one line for people: what is left to who feeds the files."""
        found = [n for n in self.norms if n is not None]
        if not found:
            return (
                "no file was changed for --preprocess-outside: no input is normalised channel by "
                "channel, or the first layer does it at no cost"
            )
        means = "; ".join(f"mean {_numbers(n.mean)}, std {_numbers(n.std)}" for n in found)
        return (
            f"the files take normalised inputs ({means}): edgedl's runner normalises, other "
            "programs must"
        )


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{v:.4g}" for v in values) + "]"


def _ranges_of_inputs(encodings: Encodings, norms: dict[str, InputNorm]) -> Encodings:
    """Return the table in which an input has the range of what it is normalised to."""
    known = encodings.activations
    moved = {name: known[norm.node] for name, norm in norms.items() if norm.node in known}
    return replace(encodings, activations={**known, **moved})
