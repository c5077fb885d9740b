"""Association: a class and a cue occur together in the data, overall and within strata.

Counts are expected numbers from probabilities of presence. Sources: Haldane and Anscombe (half an
image added to every cell), Woolf (standard error of the log odds ratio), percentile bootstrap over
images, Benjamini and Hochberg (1995); Mantel and Haenszel, Breslow and Day (strata, statsmodels).
The odds ratios of all pairs are computed here, as statsmodels takes one table at a time.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit import mixture
from pipeline.audit.inference import Z95, Array, adjusted, ratio
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Histograms, HistogramSums, Population, Readable, batches
from pipeline.config.audit_settings import Gates
from pipeline.errors import UsageError

_LEVELS = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
"""The bootstrap groups images by these posteriors, as those of one group differ little."""
MOST_STRATA = 1000
_LEAST = 1e-6  # expected images in a margin of a stratum's table


@dataclass(frozen=True)
class Association:
    """Association of C cues with K classes, arrays (C, K).

    Attributes:
        images: explained images of the class.
        with_cue: expected number of them that have the cue.
        elsewhere, elsewhere_with: the same for all other labelled images.
        effect, low, high: odds ratio and its 95 % interval.
        p: two-sided p-value; NaN where the pair was not tested.
        q: the same adjusted over all tested pairs (Benjamini, Hochberg).
        tested: whether the pair could be tested.
        auc: P(score in the class > score elsewhere). A description, not a test.
        aligned: scores are higher in the class, but only a mixture without class offsets finds two
            states. The cause may be the cue or the class itself.
    """

    images: Array
    with_cue: Array
    elsewhere: Array
    elsewhere_with: Array
    effect: Array
    low: Array
    high: Array
    p: Array
    q: Array
    tested: NDArray[np.bool_]
    auc: Array
    aligned: NDArray[np.bool_]

    @property
    def share(self) -> Array:
        """P(cue | class)."""
        return ratio(self.with_cue, self.images)

    @property
    def share_elsewhere(self) -> Array:
        """P(cue | not class)."""
        return ratio(self.elsewhere_with, self.elsewhere)

    @property
    def lift(self) -> Array:
        """P(cue | class) / P(cue)."""
        overall = ratio(self.with_cue + self.elsewhere_with, self.images + self.elsewhere)
        return ratio(self.share, overall)


def associate(presence: Presence, gates: Gates, resamples: int, seed: int) -> Association:
    """Test every measured cue in every class that has other images to be compared with.

    Args:
        gates: images of a class that a test needs.
        resamples: bootstrap resamples of the images.
        seed: random seed of the bootstrap.
    """
    counts = presence.histograms.counts
    images = counts.sum(axis=2, dtype=np.float64)
    with_cue = np.einsum("ckb,ckb->ck", counts, presence.posterior, dtype=np.float64)
    rest, rest_with = _others(images), _others(with_cue)
    log_odds, error = log_odds_ratio(with_cue, images, rest_with, rest)
    low, high = log_odds - Z95 * error, log_odds + Z95 * error
    for cue in map(int, np.flatnonzero(presence.measured)):
        rng = np.random.default_rng([seed, cue])
        drawn = _resampled(counts[cue], presence.posterior[cue], resamples, rng)
        with np.errstate(all="raise"):
            resampled, _ = log_odds_ratio(drawn, images[cue], _others(drawn), rest[cue])
        bounds = np.quantile(resampled, [0.025, 0.975], axis=0)
        low[cue], high[cue] = np.minimum(low[cue], bounds[0]), np.maximum(high[cue], bounds[1])
        error[cue] = np.maximum(error[cue], resampled.std(axis=0))
    enough = (images >= gates.class_images) & (rest >= gates.class_images)
    tested = enough & presence.measured[:, None] & ~presence.unconfirmed
    p = np.where(tested, 2 * norm.sf(np.abs(log_odds) / error), np.nan)
    unknown = ~(presence.measured[:, None] & (images > 0) & (rest > 0)) | presence.unconfirmed
    effect, low, high = (np.where(unknown, np.nan, np.exp(v)) for v in (log_odds, low, high))
    aligned = _aligned(presence, gates) | (presence.unconfirmed & presence.measured[:, None])
    return Association(
        images=images,
        with_cue=np.where(presence.measured[:, None] & ~presence.unconfirmed, with_cue, np.nan),
        elsewhere=rest,
        elsewhere_with=np.where(presence.measured[:, None], rest_with, np.nan),
        effect=effect,
        low=low,
        high=high,
        p=p,
        q=adjusted(p),
        tested=tested,
        auc=_auc(counts),
        aligned=aligned,
    )


def log_odds_ratio(present: Array, images: Array, other: Array, rest: Array) -> tuple[Array, Array]:
    """Log odds ratio and its standard error (Woolf) with half an image added to every cell.

    Args:
        present, images: images of the class with the cue, and all of them.
        other, rest: the same for the other classes.
    """
    cells = (present, images - present, other, rest - other)
    a, b, c, d = (np.maximum(cell, 0) + 0.5 for cell in cells)
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def _others(values: Array) -> Array:
    """Sum over all other classes; classes are the last axis."""
    result: Array = np.maximum(values.sum(axis=-1, keepdims=True) - values, 0)
    return result


def _resampled(
    counts: NDArray[np.float32],
    posterior: NDArray[np.float32],
    resamples: int,
    rng: np.random.Generator,
) -> Array:
    """(R, K) expected number of images with the cue when the images of each class are resampled.

    Args:
        counts, posterior: (K, B) of one cue.
    """
    level = np.searchsorted(_LEVELS, posterior)
    groups = [np.where(level == i, counts, 0) for i in range(len(_LEVELS) + 1)]
    sizes = np.stack([group.sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    sums = np.stack([(group * posterior).sum(axis=1, dtype=np.float64) for group in groups], axis=1)
    images = sizes.sum(axis=1)
    shares = sizes / np.maximum(images, 1)[:, None]
    shares[images == 0, 0] = 1.0
    drawn = rng.multinomial(images.astype(np.int64), shares, size=(resamples, len(images)))
    return np.asarray((drawn * ratio(sums, sizes, empty=0.0)).sum(axis=2))


def _aligned(presence: Presence, gates: Gates) -> NDArray[np.bool_]:
    """(C, K) pairs of unmeasured cues that a mixture pooled over the classes would flag."""
    hidden = np.flatnonzero(~presence.measured)
    counts = presence.histograms.counts
    higher = np.zeros(counts.shape[:2], dtype=bool)
    if not len(hidden):
        return higher
    pooled = _pooled_posterior(presence.histograms, hidden)
    images = counts[hidden].sum(axis=2, dtype=np.float64)
    present = np.einsum("ckb,cb->ck", counts[hidden], pooled)
    log_odds, error = log_odds_ratio(present, images, _others(present), _others(images))
    higher[hidden] = (log_odds - Z95 * error > np.log(gates.odds_ratio)) & (present >= gates.images)
    result: NDArray[np.bool_] = higher & (counts.sum(axis=2) >= gates.class_images)
    return result


def _pooled_posterior(histograms: Histograms, cues: NDArray[np.int64]) -> Array:
    """(C, B) probability of the high state by a mixture fitted to all classes together."""
    pooled = histograms.counts[cues].sum(axis=1, keepdims=True)
    data = HistogramSums.of(pooled, histograms.centres[cues], histograms.width[cues])
    return mixture.fit(data).states(data.centres)[:, 0, :, mixture.HIGH]


def _auc(counts: NDArray[np.float32]) -> Array:
    """(C, K) area under the ROC curve of score for class; scores of one bin count as ties.

    Computed from histograms, which scikit-learn does not take.
    """
    auc = np.full(counts.shape[:2], np.nan)
    for cue, in_class in enumerate(counts.astype(np.float64)):
        elsewhere = in_class.sum(axis=0) - in_class
        below = elsewhere.cumsum(axis=1) - elsewhere / 2
        pairs = in_class.sum(axis=1) * elsewhere.sum(axis=1)
        auc[cue] = ratio((in_class * below).sum(axis=1), pairs)
    return auc


@dataclass(frozen=True)
class Strata:
    """Presence of M measured cues by class and stratum.

    Attributes:
        column: column of the results whose values are the strata.
        values: (S,) its values.
        images: (K, S) number of images.
        present: (M, K, S) expected number of images with the cue.
        cues: (M,) names.
    """

    column: str
    values: tuple[str, ...]
    images: Array
    present: Array
    cues: tuple[str, ...]

    def tables(self, cue: str, code: int) -> Array:
        """(S', 2, 2) tables of class by cue in the strata that have the class and others."""
        present = self.present[self.cues.index(cue)]
        inside, outside = self.images[code], self.images.sum(axis=0) - self.images[code]
        inside_with, outside_with = present[code], present.sum(axis=0) - present[code]
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
        cells = batch.codes * MOST_STRATA + np.array(strata)[indices]
        size = classes * MOST_STRATA
        images += np.bincount(cells, minlength=size).reshape(images.shape)
        for row, cue in enumerate(measured):
            weight = presence.of(names.index(cue), batch.codes, batch.scores(cue))
            present[row] += np.bincount(cells, weight, size).reshape(images.shape)
    count = len(values)
    return Strata(
        column,
        tuple("(none)" if value is None else value for value in values),
        images[:, :count],
        present[..., :count],
        tuple(measured),
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
