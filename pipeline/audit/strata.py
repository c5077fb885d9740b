"""Does an association hold within the values of another column? Mantel-Haenszel over its strata."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.audit.aggregate import Population, Readable, batches
from pipeline.audit.histogram_sums import Array
from pipeline.audit.presence import Presence
from pipeline.errors import UsageError

MOST_STRATA = 1000
_LEAST = 1e-6


@dataclass(frozen=True)
class Strata:
    """Presence by class and stratum.

    Attributes:
        column: whose values are the strata.
        values: (S,) of them.
        images: (K, S).
        present: (M, K, S) expected number with each measured cue.
        cues: (M,) names.
    """

    column: str
    values: tuple[str, ...]
    images: Array
    present: Array
    cues: tuple[str, ...]

    def tables(self, cue: str, code: int) -> Array:
        """(S', 2, 2) class or not x cue or not, of the strata that have both classes and rest."""
        present, images = self.present[self.cues.index(cue)], self.images
        mine, others = images[code], images.sum(axis=0) - images[code]
        with_cue, other = present[code], present.sum(axis=0) - present[code]
        cells = np.stack([with_cue, mine - with_cue, other, others - other], axis=1)
        result: Array = np.maximum(cells[(mine > 0) & (others > 0)], 0).reshape(-1, 2, 2)
        return result


def count_strata(results: Readable, known: Population, presence: Presence, column: str) -> Strata:
    """Read one column and the scores of the measured cues.

    Raises:
        UsageError: no such column, or it has too many values to be strata.
    """
    if column not in results.dataset.schema.names:
        raise UsageError(
            f"stratum: no column {column!r} in the results; carry it from the source (source.carry)"
        )
    names = presence.histograms.cues
    places = np.flatnonzero(presence.measured)
    classes = len(known.classes)
    values: dict[str | None, int] = {}
    images = np.zeros((classes, MOST_STRATA))
    present = np.zeros((len(places), classes, MOST_STRATA))
    for batch in batches(results, known, [names[p] for p in places], [column]):
        encoded = pc.cast(batch.table[column], "string").combine_chunks().dictionary_encode()
        own = [values.setdefault(v, len(values)) for v in [*encoded.dictionary.to_pylist(), None]]
        if len(values) > MOST_STRATA:
            raise UsageError(
                f"stratum: {column} has more than {MOST_STRATA} values; expected a few groups, "
                "such as a site or a device"
            )
        indices = encoded.indices.fill_null(len(own) - 1).to_numpy(zero_copy_only=False)
        cells = batch.codes * MOST_STRATA + np.array(own)[indices]
        size = classes * MOST_STRATA
        images += np.bincount(cells, minlength=size).reshape(images.shape)
        for row, place in enumerate(map(int, places)):
            weight = presence.of(place, batch.codes, batch.scores(names[place]))
            present[row] += np.bincount(cells, weight, size).reshape(images.shape)
    count = len(values)
    return Strata(
        column,
        tuple("(none)" if value is None else value for value in values),
        images[:, :count],
        present[..., :count],
        tuple(names[place] for place in places),
    )


def mantel_haenszel(strata: Strata, pairs: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Pooled odds ratio of each (cue, class code) within the strata.

    Returns:
        A row a pair: ``odds_ratio``, ``low``, ``high`` (95 %), ``strata`` that count, and
        ``homogeneity_p`` (Breslow-Day; low: the strata disagree). NaN where no stratum has both.
    """
    rows = [_pooled(strata.tables(cue, code)) for cue, code in pairs]
    columns = ["odds_ratio", "low", "high", "strata", "homogeneity_p"]
    return pd.DataFrame(rows, columns=columns)


def _pooled(tables: NDArray[np.float64]) -> tuple[float, float, float, int, float]:
    from statsmodels.stats.contingency_tables import StratifiedTable

    informative = tables[(tables.sum(axis=1) > _LEAST).all(axis=1)]
    count = len(informative)
    if not count:
        return (np.nan, np.nan, np.nan, 0, np.nan)
    shifted = np.where((informative < 0.5).any(axis=(1, 2), keepdims=True), 0.5, 0) + informative
    table = StratifiedTable(np.moveaxis(shifted, 0, 2))
    low, high = table.oddsratio_pooled_confint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one stratum has no degree of freedom
        homogeneity = table.test_equal_odds().pvalue if count > 1 else np.nan
    return (float(table.oddsratio_pooled), float(low), float(high), count, float(homogeneity))
