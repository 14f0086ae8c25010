"""Distances between what a student computes and what its teacher computes; each a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Park et al. weigh the angles twice as much as the distances.
ANGLE_WEIGHT = 2.0

# Values of a channel that say how it varies.
FEW_VALUES = 8

# Share of an output's variance; a channel that has less does not vary, and is in no other units.
CONSTANT = 1e-9

# Squared distances below this share of the mean squared norm are the noise of float32.
COINCIDENT = 1e-6


def softened_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence KL(teacher || student) of logits [B, K, ...], times T squared.

    The mean is over samples and, where there are any, places: that of cross-entropy.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    own = F.log_softmax(logits / temperature, 1)
    wanted = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(own, wanted, reduction="none", log_target=True).sum(1)
    return divergence.mean() * temperature**2


def squared_difference(outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    """Return the mean squared difference of each output, summed over outputs."""
    return torch.stack([F.mse_loss(y, t) for y, t in zip(outputs, teacher, strict=True)]).sum()


def scaled_difference(outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    """Return the squared difference of each output in units of its own, summed over outputs.

    Each channel, axis 1, is measured by the variance of what the teacher says there, so that boxes
    in pixels do not outweigh scores, and that no learning rate depends on the units.
    """
    pairs = zip(outputs, teacher, strict=True)
    return torch.stack([((y - t).square() / _variance(t)).mean() for y, t in pairs]).sum()


def _variance(x: Tensor) -> Tensor:
    """Return the variance of each channel [1, C, 1, ...], of all values where there are few."""
    x = x.float()
    whole = x.var(correction=0)
    others = [axis for axis in range(x.ndim) if axis != 1]
    if x.ndim < 2 or x.numel() < FEW_VALUES * x.shape[1]:
        found = whole
    else:
        found = x.var(others, correction=0, keepdim=True)
        found = torch.where(found > CONSTANT * whole, found, whole)
    return torch.where(found > 0, found, torch.ones_like(found))


def hint_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of features of one shape [B, ...].

    The student's have been projected to the teacher's width before.

    Source: Romero et al., "FitNets: hints for thin deep nets", 2015, equation 3; the mean over
    values in place of half their sum, so that the weight does not depend on their number.
    """
    return F.mse_loss(features, teacher)


def attention_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean distance of the normalised attention maps of two networks.

    Args:
        features: of the student [B, C, H, W].
        teacher: its features [B, D, H, W]; D may be another width.

    Source: Zagoruyko, Komodakis, "Paying more attention to attention", 2017, equation 2,
    activation-based, p = 2: the norm itself, whose square the authors' code takes.
    """
    apart = attention_map(features) - attention_map(teacher)
    distances: Tensor = torch.linalg.vector_norm(apart, dim=1)
    return distances.mean()


def attention_map(features: Tensor) -> Tensor:
    """Return where features [B, C, H, W] are large: [B, H*W], each row of length one.

    >>> attention_map(torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]]))
    tensor([[0.4472, 0.8944]])
    """
    return F.normalize(features.square().sum(1).flatten(1), dim=1)


def relational_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Return how much the samples of a batch lie otherwise towards each other.

    The distance-wise loss plus twice the angle-wise. Memory grows with the cube of the batch.

    Args:
        features: of the student [B, ...].
        teacher: its features [B, ...], of any other shape.

    Source: Park et al., "Relational knowledge distillation", 2019, section 3.2.
    """
    own, wanted = _Relations(features), _Relations(teacher)
    return _distance_wise(own, wanted) + ANGLE_WEIGHT * _angle_wise(own, wanted)


def distance_wise(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss of all B * B distances, each network's in units of its mean.

    Args:
        features: of the student [B, ...].
        teacher: its features [B, ...], of any other shape.

    Source: Park et al., "Relational knowledge distillation", 2019, section 3.2.1.
    """
    return _distance_wise(_Relations(features), _Relations(teacher))


def angle_wise(features: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean Huber loss of the cosines at all B * B * B triangles' corners.

    Args:
        features: of the student [B, ...].
        teacher: its features [B, ...], of any other shape.

    Source: Park et al., "Relational knowledge distillation", 2019, section 3.2.2.
    """
    return _angle_wise(_Relations(features), _Relations(teacher))


class _Relations:
    """Distances and angles of samples [B, ...], from their scalar products [B, B] alone.

    The differences of all pairs, [B, B, values], would be gigabytes for a feature map. The mean
    is taken off first: it changes no difference, and large products would lose their last digits.
    """

    def __init__(self, features: Tensor) -> None:
        rows = features.flatten(1)
        rows = rows - rows.mean(0)
        self.products = rows @ rows.T
        norms = self.products.diagonal()
        squared = norms[:, None] + norms[None, :] - 2 * self.products
        self.apart = squared > COINCIDENT * norms.mean()
        # The root's slope at zero is infinite, also where its value is not used.
        self.root = torch.where(self.apart, squared, 1.0).sqrt()

    def distances(self) -> Tensor:
        """Return [B, B], divided by the mean over pairs of different samples."""
        distances = self.root * self.apart
        pairs = max(1, len(distances) * (len(distances) - 1))
        mean = distances.sum() / pairs
        return distances / mean.clamp(min=torch.finfo(mean.dtype).tiny)

    def cosines(self) -> Tensor:
        """Return [B, B, B]: at corner [j], of the directions to [:, i] and to [:, :, k].

        Zero where a direction is of no length.
        """
        g = self.products
        corner = g.diagonal()[:, None, None]
        products = g[None] - g[:, :, None] - g[:, None, :] + corner
        inverse = self.apart / self.root
        return products * inverse[:, :, None] * inverse[:, None, :]


def _distance_wise(own: _Relations, wanted: _Relations) -> Tensor:
    return F.huber_loss(own.distances(), wanted.distances())


def _angle_wise(own: _Relations, wanted: _Relations) -> Tensor:
    return F.huber_loss(own.cosines(), wanted.cosines())
