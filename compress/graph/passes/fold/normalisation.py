"""Inputs that a network brings to mean 0 and deviation 1 itself."""

from torch import fx

from edgedl.compress.graph.edit import inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.fold.chain import STEPS, AffineChain
from edgedl.compress.graph.passes.fold.channels import insert_depthwise
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import StoreComputed
from edgedl.compress.graph.values import shape_of

CHANNELS = 1


class NormalisationAsDepthwise(Pass):
    """Turn a sum and a product over the channels of an input into a 1x1 depthwise conv.

    One integer operator on every runtime, where the convolution behind it pads with zeros: then it
    cannot be part of that. Of values inside of the network, only ``(x + offset) * k`` with a number
    for each channel.

    Before: ``mul(add(x, offset), k)``. After: ``conv2d(x, k, offset * k, groups=C)``.
    """

    requires = (ArithmeticForms, StoreComputed)
    operators = frozenset(STEPS)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Replace what ends in one sum or product."""
        chain = _chain_to(module, node)
        if chain is None or not self._is_for(chain):
            return None
        return insert_depthwise(module, node, chain.source, chain.factor, chain.shift)

    def _is_for(self, chain: AffineChain) -> bool:
        if chain.source.op == "placeholder":
            by_channel = any(chain.by_channel) and len(chain.nodes) > 1
            return by_channel and bool(chain.shift.any())
        targets = [node.target for node in chain.nodes]
        product_of_sum = targets == [aten.mul.Tensor, aten.add.Tensor]
        is_picture = len(shape_of(chain.source)) == 4
        return is_picture and product_of_sum and all(chain.by_channel)


class SumBeforeProduct(Pass):
    """Write sums and products of an input with numbers, of which the last is a sum, as two.

    The product then goes into the layer behind it; a sum alone costs next to nothing.

    Before: ``add(mul(x, 2), -1)``. After: ``mul(add(x, -0.5), 2)``.
    """

    requires = (NormalisationAsDepthwise,)
    operators = frozenset({aten.add.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Replace what ends in one sum."""
        chain = _chain_to(module, node)
        if chain is None or chain.source.op != "placeholder" or any(chain.by_channel):
            return None
        factor, shift = float(chain.factor[0]), float(chain.shift[0])
        if factor in (0, 1):
            return None
        insert = inserter(module, node)
        total = insert(aten.add.Tensor, chain.source, shift / factor)
        return insert(aten.mul.Tensor, total, factor)


def _chain_to(module: fx.GraphModule, node: fx.Node) -> AffineChain | None:
    """Return the chain over the channels of a series or a picture that ends in a node."""
    shape = shape_of(node)
    if len(shape) not in (3, 4) or not isinstance(shape[CHANNELS], int):
        return None
    chain = AffineChain.through(module, node, CHANNELS)
    return chain if chain is not None and chain.nodes[0] is node else None
