"""Claim B: does the model's own text margin fall when the cue is deleted?

``m_y(x) = cos(x, t_y) - max over y' of cos(x, t_y')``. Classes with the same text as y are no
rivals. The positive control is a direction that depends on the cue by its words, "a fish with a
watermark" minus "a fish": where deletion does not move even that, a margin that stays proves
nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from pipeline.audit.inference import Array
from pipeline.reliance.edited import Deletion, Vectors

_Z = float(norm.ppf(0.975))
_SAME = 0.999  # cosine of two texts that are one


@dataclass(frozen=True)
class Change:
    """A change by deletion, in standard deviations over the class's images as they are.

    Attributes:
        effect, low, high: mean and its 95 % interval over images.
        p: one-sided, of no fall.
        by_fill: mean of each fill.
    """

    effect: float
    low: float
    high: float
    p: float
    by_fill: tuple[float, ...]

    @property
    def agree(self) -> bool:
        """Whether all fills say the same sign."""
        return len({np.sign(value) for value in self.by_fill}) == 1


def of_margin(deletion: Deletion, texts: Vectors, place: int) -> Change:
    """Fall of a class's margin.

    Args:
        deletion: of the cue in images of the class.
        texts: (K', E) unit directions of the class queries.
        place: of the class's own among them.
    """
    own = texts[place]
    others = texts[(texts @ own) < _SAME]

    def margin(vectors: Vectors) -> Array:
        best = (vectors @ others.T).max(axis=-1) if len(others) else 0.0
        result: Array = (vectors @ own - best).astype(np.float64)
        return result

    return _change(margin(deletion.before), margin(deletion.control) - margin(deletion.without))


def of_direction(deletion: Deletion, direction: Vectors) -> Change:
    """Fall along one direction (E,)."""
    return _change(
        (deletion.before @ direction).astype(np.float64),
        (deletion.change @ direction).astype(np.float64),
    )


def _change(before: Array, lost: Array) -> Change:
    """From values (n,) and what they lose (F, n)."""
    count = lost.shape[1]
    spread = float(before.std(ddof=1)) if count > 1 else 0.0
    if spread <= 0:
        return Change(np.nan, np.nan, np.nan, np.nan, ())
    scaled = lost / spread
    mean = scaled.mean(axis=0)
    effect, error = float(mean.mean()), float(mean.std(ddof=1)) / np.sqrt(count)
    p = float(norm.sf(effect / error)) if error > 0 else float(effect <= 0)
    by_fill = tuple(float(value) for value in scaled.mean(axis=1))
    return Change(effect, effect - _Z * error, effect + _Z * error, p, by_fill)
