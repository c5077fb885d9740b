"""Association within strata, groups of images such as sites or devices.

Sources: Mantel and Haenszel (pooled odds ratio), Breslow and Day (homogeneity), by statsmodels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.inference import Array
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.audit.split import confirming
from pipeline.errors import UsageError

MOST_STRATA = 1000
_LEAST = 1e-6  # expected images in a margin of a stratum's table


@dataclass(frozen=True)
class Strata:
    """Presence of M measured cues by class and stratum.

    Attributes:
        column: column of the results whose values are the strata.
        values: (S,) its values.
        cues: (M,) names.
        images: (M, K, S) number of images in which a cue is counted.
        present: (M, K, S) expected number of these images with the cue.
        all_images, all_present: (M, S), the same of the images of all classes.
    """

    column: str
    values: tuple[str, ...]
    cues: tuple[str, ...]
    images: Array
    present: Array
    all_images: Array
    all_present: Array

    def tables(self, cue: str, code: int) -> Array:
        """(S', 2, 2) tables of class by cue in the strata that have the class and others."""
        row = self.cues.index(cue)
        inside, inside_with = self.images[row, code], self.present[row, code]
        outside, outside_with = self.all_images[row] - inside, self.all_present[row] - inside_with
        cells = [inside_with, inside - inside_with, outside_with, outside - outside_with]
        both = (inside > 0) & (outside > 0)
        result: Array = np.maximum(np.stack(cells, axis=1)[both], 0).reshape(-1, 2, 2)
        return result


def require_stratum(results: Readable, column: str) -> None:
    """Refuse a column that the results do not have.

    Raises:
        UsageError: they do not.
    """
    if column not in results.dataset.schema.names:
        raise UsageError(
            f"stratum: no column {column!r} in the results; carry it from the source (source.carry)"
        )


def count_strata(
    results: Readable,
    population: Population,
    presence: Presence,
    column: str,
    cues: Sequence[str],
    halved: frozenset[str] = frozenset(),
) -> Strata:
    """Count cues by class and by the values of a column.

    Args:
        cues: names of measured cues.
        halved: cues of which only the confirming half of the images counts.

    Raises:
        UsageError: there is no such column, or it has more than `MOST_STRATA` values.
    """
    require_stratum(results, column)
    values = _values(results, population, column)
    shape = (len(population.classes), len(values))
    images, present = np.zeros((len(cues), *shape)), np.zeros((len(cues), *shape))
    every, every_with = np.zeros((len(cues), shape[1])), np.zeros((len(cues), shape[1]))
    names = presence.histograms.cues
    columns = [column, "image_id"] if halved.intersection(cues) else [column]
    for batch in batches(results, population, cues, columns) if cues else ():
        encoded = _encoded(batch.table[column])
        numbers = [values[value] for value in (*encoded.dictionary.to_pylist(), None)]
        indices = encoded.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        stratum, members = np.array(numbers)[indices], batch.members
        everywhere = np.ones(len(stratum), bool)
        half = confirming(batch.table["image_id"].to_pylist()) if len(columns) > 1 else everywhere
        cells = members.codes * shape[1] + stratum[members.rows]
        for row, cue in enumerate(cues):
            counted = (half if cue in halved else everywhere).astype(np.float64)
            weight = counted * presence.of(names.index(cue), batch.codes, batch.scores(cue))
            for total, by_row in ((images, counted), (present, weight)):
                sums = np.bincount(cells, by_row[members.rows], shape[0] * shape[1])
                total[row] += sums.reshape(shape)
            every[row] += np.bincount(stratum, counted, shape[1])
            every_with[row] += np.bincount(stratum, weight, shape[1])
    if not population.has_sets:  # the sums over the classes, rounded as they are
        every, every_with = images.sum(axis=1), present.sum(axis=1)
    texts = tuple("(none)" if value is None else value for value in values)
    return Strata(column, texts, tuple(cues), images, present, every, every_with)


def _values(results: Readable, population: Population, column: str) -> dict[str | None, int]:
    """Values of a column in the order of their first image, each with its number; None is one."""
    values: dict[str | None, int] = {None: 0}
    for batch in batches(results, population, [], [column]):
        for value in _encoded(batch.table[column]).dictionary.to_pylist():
            values.setdefault(value, len(values))
        if len(values) > MOST_STRATA + 1:
            raise UsageError(
                f"stratum: {column} has more than {MOST_STRATA} values; expected a few groups, "
                "such as a site or a device"
            )
    return values


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return pc.cast(column, "string").combine_chunks().dictionary_encode()


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
    table = StratifiedTable(np.moveaxis(_shifted(informative), 0, 2))
    low, high = table.oddsratio_pooled_confint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a single stratum has no degree of freedom
        homogeneity = table.test_equal_odds().pvalue if count > 1 else np.nan
    return (float(table.oddsratio_pooled), float(low), float(high), count, float(homogeneity))


def _shifted(tables: Array) -> Array:
    """Tables (S, 2, 2) for which the pooled odds ratio is finite and positive.

    Only where it is not, half an image is added to each cell, shared among all strata. Half an
    image in every stratum would let small strata pretend an association: with one image of the
    class and 40 others in each of 200 strata, the class's share of a rare cue came near one half.
    """
    total = tables.sum(axis=(1, 2))
    for one, other in (((0, 0), (1, 1)), ((0, 1), (1, 0))):
        products = tables[:, *one] * tables[:, *other] / total
        if products.sum() <= _LEAST:
            return tables + 0.5 / len(tables)
    return tables
