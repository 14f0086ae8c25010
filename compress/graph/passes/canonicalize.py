"""Rewrite a traced graph into the few operators that the quantizer reasons about."""

from collections.abc import Sequence

from torch import Tensor, fx

from edgedl.compress.graph.edit import finish
from edgedl.compress.graph.passes.cells import CellsAsLayers
from edgedl.compress.graph.passes.check_passes import PassCheck
from edgedl.compress.graph.passes.composites.attention import OpenAttention
from edgedl.compress.graph.passes.composites.lists import OpenLists
from edgedl.compress.graph.passes.composites.masked_scores import OpenMaskedScores
from edgedl.compress.graph.passes.composites.silu import OpenSilu
from edgedl.compress.graph.passes.fold.affine import FoldAffine
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.fold.factor import FoldFactor
from edgedl.compress.graph.passes.fold.next_layer import FoldIntoNextLayer
from edgedl.compress.graph.passes.fold.normalisation import (
    NormalisationAsDepthwise,
    SumBeforeProduct,
)
from edgedl.compress.graph.passes.forms.activations import ActivationForms
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.forms.identities import DropIdentities, DropNeutral
from edgedl.compress.graph.passes.forms.joins import JoinForms
from edgedl.compress.graph.passes.forms.maxima import MaximaAlone
from edgedl.compress.graph.passes.forms.moves import MoveForms
from edgedl.compress.graph.passes.forms.pools import PoolForms
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.forms.softmax import SoftmaxForms
from edgedl.compress.graph.passes.forms.stacked import StackedMaximum
from edgedl.compress.graph.passes.graph_pass import Order, in_order, walk
from edgedl.compress.graph.passes.pools.activation import ActivateBeforePool
from edgedl.compress.graph.passes.pools.global_mean import GlobalPoolAsMean
from edgedl.compress.graph.passes.pools.padded import PaddedMaximum
from edgedl.compress.graph.passes.pools.uneven import AdaptiveMaximum, EvenAverage
from edgedl.compress.graph.passes.products.einsum import OpenEinsum
from edgedl.compress.graph.passes.products.linear import LinearOfStored
from edgedl.compress.graph.passes.products.scale import ScaleInProducer
from edgedl.compress.graph.passes.series import SeriesAsPictures
from edgedl.compress.graph.passes.stored import StoreComputed
from edgedl.compress.graph.passes.transposed.crop import CropTransposed
from edgedl.compress.graph.passes.transposed.opened import OpenTransposed

ORDER: Order = in_order(
    # One walk: whether memory is shared is seen in the last form of what stands before.
    (
        # First: its result is an operator like any other.
        DropSideEffects(),
        DropIdentities(),
        JoinForms(),
        MoveForms(),
        ArithmeticForms(),
        DropNeutral(),
        ActivationForms(),
        SoftmaxForms(),
        # Before pools of series become those of pictures: their pads would stand elsewhere.
        PaddedMaximum(),
        PoolForms(),
        MaximaAlone(),
        StackedMaximum(),
        EvenAverage(),
        AdaptiveMaximum(),
        CellsAsLayers(),
    ),
    # Before batch norms are folded: they are folded into the layer of pictures.
    (SeriesAsPictures(),),
    # One walk: a factor goes into the layer of the product before it, whoever wrote that.
    (OpenEinsum(), LinearOfStored(), ScaleInProducer()),
    # Behind the linear layers, whose weights can be computed ones, before what folds into weights.
    (StoreComputed(),),
    # One walk: batch norms, products and sums stand behind a layer in any order.
    (
        FoldBatchNorm(),
        # Before its sum and its product are folded apart.
        NormalisationAsDepthwise(),
        SumBeforeProduct(),
        FoldAffine(),
        FoldFactor(),
        # Their products are no factors of layers.
        OpenSilu(),
        OpenAttention(),
        OpenMaskedScores(),
        OpenLists(),
        GlobalPoolAsMean(),
    ),
    # Behind the batch norms, which stand between a layer and its pool.
    (FoldIntoNextLayer(), ActivateBeforePool()),
    # Last: all that was folded belongs to the transposed convolution as a whole.
    (OpenTransposed(), CropTransposed()),
)


def canonicalize(module: fx.GraphModule, check: Sequence[Tensor] = ()) -> fx.GraphModule:
    """Apply every pass in place and return the module.

    Args:
        module: from torch.export.
        check: inputs on which every rewrite is held against the graph before it; none: unchecked.

    Raises:
        PassError: a pass changes what the graph computes, or breaks what it ensures.
    """
    checking = PassCheck(module, check) if check else None
    for passes in ORDER:
        walk(module, passes, checking)
        if checking:
            checking.ensure(passes)
    return finish(module)
