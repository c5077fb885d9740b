"""Association within strata, groups of images such as sites or devices.

Sources: Mantel and Haenszel (pooled odds ratio), Breslow and Day (homogeneity), by statsmodels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from pipeline.audit.inference import Array
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.errors import UsageError

MOST_STRATA = 1000
_LEAST = 1e-6  # expected images in a margin of a stratum's table


@dataclass(frozen=True)
class Strata:
    """Presence of M measured cues by class and stratum.

    Attributes:
        column: column of the results whose values are the strata.
        values: (S,) its values.
        images: (K, S) number of images.
        present: (M, K, S) expected number of images with the cue.
        cues: (M,) names.
        all_images, all_present: (S,) and (M, S), the same of all images.
    """

    column: str
    values: tuple[str, ...]
    images: Array
    present: Array
    cues: tuple[str, ...]
    all_images: Array
    all_present: Array

    def tables(self, cue: str, code: int) -> Array:
        """(S', 2, 2) tables of class by cue in the strata that have the class and others."""
        row = self.cues.index(cue)
        inside, inside_with = self.images[code], self.present[row, code]
        outside, outside_with = self.all_images - inside, self.all_present[row] - inside_with
        cells = [inside_with, inside - inside_with, outside_with, outside - outside_with]
        both = (inside > 0) & (outside > 0)
        result: Array = np.maximum(np.stack(cells, axis=1)[both], 0).reshape(-1, 2, 2)
        return result


def count_strata(
    results: Readable, population: Population, presence: Presence, column: str
) -> Strata:
    """Count the measured cues by class and by the values of a column.

    Raises:
        UsageError: there is no such column, or it has more than `MOST_STRATA` values.
    """
    if column not in results.dataset.schema.names:
        raise UsageError(
            f"stratum: no column {column!r} in the results; carry it from the source (source.carry)"
        )
    names = presence.histograms.cues
    measured = [names[cue] for cue in np.flatnonzero(presence.measured)]
    classes = len(population.classes)
    values: dict[str | None, int] = {}
    images = np.zeros((classes, MOST_STRATA))
    present = np.zeros((len(measured), classes, MOST_STRATA))
    every, every_with = np.zeros(MOST_STRATA), np.zeros((len(measured), MOST_STRATA))
    for batch in batches(results, population, measured, [column]):
        encoded = pc.cast(batch.table[column], "string").combine_chunks().dictionary_encode()
        strata = [
            values.setdefault(v, len(values)) for v in (*encoded.dictionary.to_pylist(), None)
        ]
        if len(values) > MOST_STRATA:
            raise UsageError(
                f"stratum: {column} has more than {MOST_STRATA} values; expected a few groups, "
                "such as a site or a device"
            )
        indices = encoded.indices.fill_null(len(strata) - 1).to_numpy(zero_copy_only=False)
        stratum, members = np.array(strata)[indices], batch.members
        cells = members.codes * MOST_STRATA + stratum[members.rows]
        size = classes * MOST_STRATA
        images += np.bincount(cells, minlength=size).reshape(images.shape)
        every += np.bincount(stratum, minlength=MOST_STRATA)
        for row, cue in enumerate(measured):
            weight = presence.of(names.index(cue), batch.codes, batch.scores(cue))
            present[row] += np.bincount(cells, weight[members.rows], size).reshape(images.shape)
            every_with[row] += np.bincount(stratum, weight, MOST_STRATA)
    if not population.has_sets:  # the sums over the classes, rounded as they are
        every, every_with = images.sum(axis=0), present.sum(axis=1)
    count = len(values)
    return Strata(
        column,
        tuple("(none)" if value is None else value for value in values),
        images[:, :count],
        present[..., :count],
        tuple(measured),
        every[:count],
        every_with[:, :count],
    )


def mantel_haenszel(strata: Strata, pairs: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Odds ratio within the strata, pooled over them, for each (cue, class code).

    Returns:
        One row per pair: ``odds_ratio``, ``low``, ``high`` (95 %), ``strata`` (number of strata
        that contribute), and ``homogeneity_p`` (Breslow-Day; a low value means that the strata
        disagree). NaN where no stratum has both the class and others.
    """
    rows = [_pooled(strata.tables(cue, code)) for cue, code in pairs]
    columns = ["odds_ratio", "low", "high", "strata", "homogeneity_p"]
    return pd.DataFrame(rows, columns=columns)


def _pooled(tables: Array) -> tuple[float, float, float, int, float]:
    from statsmodels.stats.contingency_tables import StratifiedTable

    informative = tables[(tables.sum(axis=1) > _LEAST).all(axis=1)]
    count = len(informative)
    if not count:
        return (np.nan, np.nan, np.nan, 0, np.nan)
    shifted = np.where((informative < 0.5).any(axis=(1, 2), keepdims=True), 0.5, 0) + informative
    table = StratifiedTable(np.moveaxis(shifted, 0, 2))
    low, high = table.oddsratio_pooled_confint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a single stratum has no degree of freedom
        homogeneity = table.test_equal_odds().pvalue if count > 1 else np.nan
    return (float(table.oddsratio_pooled), float(low), float(high), count, float(homogeneity))
