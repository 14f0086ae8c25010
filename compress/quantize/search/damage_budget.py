"""How much damage may remain."""

from dataclasses import dataclass

from edgedl.compress.quantize.search.choose_float import Part, excess
from edgedl.compress.quantize.search.damage import Damage
from edgedl.compress.quantize.search.noise_terms import Roundings


@dataclass(frozen=True)
class DamageBudget:
    """Limits on the damage of a quantized network; without any, the less noise the better.

    Attributes:
        min_sqnr_db: signal to quantization noise ratio that the outputs must reach.
        max_loss: largest task loss against the float network.
    """

    min_sqnr_db: float | None = None
    max_loss: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is no limit."""
        return self.min_sqnr_db is None and self.max_loss is None

    def amounts(self, damage: Damage) -> tuple[float, ...]:
        """Return what of a damage is limited."""
        return tuple(amount for amount, _ in self._counted(damage))

    def limits(self, damage: Damage) -> tuple[float, ...]:
        """Return the limits, in the units of ``amounts``."""
        return tuple(limit for _, limit in self._counted(damage))

    def excess(self, damage: Damage, whole: Damage) -> float:
        """Return by which share of the whole damage another one is over its limits."""
        return excess(self.amounts(damage), self.limits(damage), self.amounts(whole))

    def parts(self, roundings: Roundings) -> list[Part]:
        """Return what is limited, taken apart; scaled to add up to what was measured as a whole."""
        amounts = [self.amounts(term.damage) for term in roundings.terms]
        whole = self.amounts(roundings.int8)
        sums = [sum(column) for column in zip(*amounts, strict=True)]
        factors = [w / s if s else 0.0 for w, s in zip(whole, sums, strict=True)]
        return [
            Part(tuple(a * f for a, f in zip(own, factors, strict=True)), term.needs)
            for own, term in zip(amounts, roundings.terms, strict=True)
        ]

    def _counted(self, damage: Damage) -> list[tuple[float, float]]:
        pairs = []
        if self.min_sqnr_db is not None:
            pairs.append((damage.noise, damage.signal / 10 ** (self.min_sqnr_db / 10)))
        if self.max_loss is not None:
            pairs.append((damage.loss, self.max_loss))
        return pairs or [(damage.noise, 0.0)]
