"""Properties that need no model, tested for association with classes.

A property is measured and not inferred, so its presence is exact; it has no heat. Two kinds:

- *Yes or no* by its definition (a grey image, a uniform frame, a JPEG file): odds ratio, as for
  other cues, with Woolf's standard error.
- *More or less* (brightness, sharpness, ...): no cut is made. A cut that the data choose inflates
  the significance, and one that is fixed beforehand fits one data set and not the next. The effect
  is P(more of it in the class than elsewhere), ties counting half, that is the area under the ROC
  curve, as odds A / (1 - A) (Agresti 1980; "win odds"), which have the scale of an odds ratio:
  1.5 is an area of .6. The standard error is DeLong's (1988). It lets the class and the others
  differ in spread, where the classic Mann-Whitney test would be wrong, and heavy tails do not
  matter to ranks. The p-value is that of Brunner and Munzel (2000), the interval is on the scale of
  the log odds.

The values of a property are counted in bins of a relative width below 1 %, so memory does not grow
with the number of images; values of one bin are ties.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import norm, t

from pipeline.audit.association import log_odds_ratio
from pipeline.audit.basis import Basis
from pipeline.audit.inference import Z95, Array, adjusted
from pipeline.audit.scores import Population, Readable, batches
from pipeline.config.audit_settings import Gates
from pipeline.schema import property_column

GRADED = (
    *("brightness", "contrast", "colourfulness", "sharpness"),
    *("jpeg_quality", "aspect_ratio", "megapixels"),
)
"""Properties of which an image has more or less."""
LEAST = {"greyness": 0.99, "uniform_frame": 0.05}
"""Values from which an image counts as grey, and as framed (share of the area)."""
JPEG = "jpeg"
"""Whether the file is a JPEG, which its quality tells: it is null for other formats."""
_STEP = 16  # low bits of a float32 that a bin leaves out: 7 of the mantissa's 23 remain
COLUMNS = (
    *("class", "cue", "direction", "images", "with_cue", "share", "share_elsewhere"),
    *("median", "median_elsewhere", "score_auc"),
    *(f"association__{name}" for name in ("effect", "low", "high", "q", "flag", "reason", "basis")),
)


@dataclass(frozen=True)
class Tally:
    """Values of one property by class.

    Attributes:
        values: (B,) lower ends of the bins, ascending.
        counts: (K, B) images.
        every: (B,) the same of all images.
    """

    values: Array
    counts: Array
    every: Array


def stored(results: Readable) -> list[str]:
    """Names of the properties that the results have."""
    names = set(results.dataset.schema.names)
    return [name for name in (*GRADED, *LEAST) if property_column(name) in names]


def find_exact(results: Readable, population: Population, gates: Gates) -> pd.DataFrame:
    """Test every property in every audited class; q-values are adjusted over all these tests.

    Returns:
        One row per (class, property) with `COLUMNS`, classes within properties. ``direction`` says
        whether the class has ``more`` or ``less`` of a graded property than the others; the effect
        is given in that direction. Empty for results without properties.
    """
    names, frames = stored(results), []
    if names and len(population.classes) > 1:
        tallies, images = count_values(results, population, names)
        for name in names:
            tally = tallies[name]
            if name in LEAST:
                frames.append(_yes_or_no(name, *_at_least(tally, LEAST[name]), gates))
            else:
                frames.append(_more_or_less(name, tally, gates))
            if name == "jpeg_quality":
                jpegs = np.append(tally.counts.sum(axis=1), tally.every.sum())
                frames.append(_yes_or_no(JPEG, jpegs, images, gates))
    if not frames:
        return pd.DataFrame(columns=list(COLUMNS))
    for frame in frames:
        frame["class"] = population.classes
    frame = pd.concat([part.iloc[: population.audited] for part in frames], ignore_index=True)
    frame["association__q"] = adjusted(frame.pop("p").to_numpy(float))
    frame["association__reason"] = _reasons(frame, gates)
    frame["association__flag"] = frame["association__reason"] == ""
    frame["association__basis"] = str(Basis.EXACT)
    return frame[list(COLUMNS)]


def count_values(
    results: Readable, population: Population, names: list[str]
) -> tuple[dict[str, Tally], Array]:
    """Tallies by property, and (K + 1,) explained images of each class and in all, in one pass."""
    columns = {name: property_column(name) for name in names}
    sums: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    count = len(population.classes) + 1  # the last one stands for all images
    images = np.zeros(count)
    for batch in batches(results, population, [], list(columns.values())):
        every = np.arange(len(batch.codes))
        rows = np.concatenate([batch.members.rows, every])
        codes = np.concatenate([batch.members.codes, np.full(len(every), count - 1)])
        images += np.bincount(codes, minlength=count)
        for name, column in columns.items():
            values = batch.table[column].combine_chunks().cast(pa.float32())
            known = values.is_valid().to_numpy(zero_copy_only=False)[rows]
            numbers = np.maximum(values.fill_null(0).to_numpy(), np.float32(0))
            bins = (numbers.view(np.int32).astype(np.int64) >> _STEP)[rows]
            cells, counts = np.unique((codes << 32 | bins)[known], return_counts=True)
            earlier = sums.get(name, (cells[:0], counts[:0]))
            merged, place = np.unique(np.concatenate([earlier[0], cells]), return_inverse=True)
            added = np.bincount(place, np.concatenate([earlier[1], counts]), len(merged))
            sums[name] = merged, added.astype(np.int64)
    empty = np.zeros(0, np.int64)
    return {name: _tally(*sums.get(name, (empty, empty)), count) for name in names}, images


def _tally(cells: NDArray[np.int64], counts: NDArray[np.int64], classes: int) -> Tally:
    bins, column = np.unique(cells & 0xFFFFFFFF, return_inverse=True)
    table = np.zeros((classes, len(bins)))
    table[cells >> 32, column] = counts
    values = (bins << _STEP).astype(np.int32).view(np.float32).astype(np.float64)
    return Tally(values, table[:-1], table[-1])


def _at_least(tally: Tally, least: float) -> tuple[Array, Array]:
    """Images with at least this value, and all with a value: (K + 1,) by class and in all."""
    table = np.vstack([tally.counts, tally.every])
    return table[:, tally.values >= least * (1 - 2**-7)].sum(axis=1), table.sum(axis=1)


def win_odds(counts: Array, every: Array | None = None) -> pd.DataFrame:
    """Each class compared with all images outside of it: columns auc, log_odds, error, df, p.

    Args:
        counts: (K, B) images by class and value, values ascending.
        every: (B,) all images by value; default the sum over the classes.
    """
    every = counts.sum(axis=0) if every is None else every
    rest = every - counts
    n1, n0 = counts.sum(axis=1), rest.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lower = (rest.cumsum(axis=1) - rest / 2) / n0[:, None]  # P(elsewhere < value)
        higher = 1 - (counts.cumsum(axis=1) - counts / 2) / n1[:, None]  # P(class > value)
        auc = (counts * lower).sum(axis=1) / n1
        first = (counts * (lower - auc[:, None]) ** 2).sum(axis=1) / (n1 - 1) / n1
        second = (rest * (higher - auc[:, None]) ** 2).sum(axis=1) / (n0 - 1) / n0
        few = np.minimum(n1, n0)
        near = np.clip(auc, 0.5 / (few + 1), 1 - 0.5 / (few + 1))  # finite log odds
        apart = (np.minimum(auc, 1 - auc) * few < 1) | (first + second == 0)
        variance = np.where(apart, near * (1 - near) / few, first + second)
        df = (first + second) ** 2 / (first**2 / (n1 - 1) + second**2 / (n0 - 1))
        df = np.where(apart, few - 1, df)
        error = np.sqrt(variance)
        p = 2 * t.sf(np.abs(auc - 0.5) / error, df)
        p = np.where((every > 0).sum() > 1, p, np.nan)  # all alike: nothing to test
        odds = np.log(near / (1 - near))
        return pd.DataFrame(
            {"auc": auc, "log_odds": odds, "error": error / (near * (1 - near)), "df": df, "p": p}
        )


def _more_or_less(name: str, tally: Tally, gates: Gates) -> pd.DataFrame:
    images = tally.counts.sum(axis=1)
    found = win_odds(tally.counts, tally.every)
    smaller = np.minimum(images, tally.every.sum() - images)
    tested = (smaller >= gates.class_images) & found["p"].notna()
    effect = found["log_odds"].abs()
    margin = t.ppf(0.975, found["df"]) * found["error"]
    frame = pd.DataFrame(
        {
            "cue": property_column(name),
            "direction": np.where(found["auc"] < 0.5, "less", "more"),
            "images": images.astype(int),
            "median": _medians(tally.values, tally.counts),
            "median_elsewhere": _medians(tally.values, tally.every - tally.counts),
            "score_auc": found["auc"],
            "association__effect": np.exp(effect),
            "association__low": np.exp(effect - margin),
            "association__high": np.exp(effect + margin),
            "p": found["p"],
        }
    )
    frame.loc[~tested, ["association__effect", "association__low", "association__high", "p"]] = (
        np.nan
    )
    return frame.assign(with_cue=np.nan, share=np.nan, share_elsewhere=np.nan)


def _yes_or_no(name: str, present: Array, images: Array, gates: Gates) -> pd.DataFrame:
    """A property of yes or no from numbers of images (K + 1,), by class and in all."""
    (present, all_present), (images, total) = (
        (values[:-1], values[-1]) for values in (present, images)
    )
    other, rest = all_present - present, total - images
    log_odds, error = log_odds_ratio(present, images, other, rest)
    varies = 0 < all_present < total
    tested = (np.minimum(images, rest) >= gates.class_images) & varies
    log_odds, error = np.where(tested, log_odds, np.nan), np.where(tested, error, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, share_elsewhere = present / images, other / rest
    return pd.DataFrame(
        {
            "cue": property_column(name),
            "direction": "more",
            "images": images.astype(int),
            "with_cue": present,
            "share": share,
            "share_elsewhere": share_elsewhere,
            "median": np.nan,
            "median_elsewhere": np.nan,
            "score_auc": np.nan,
            "association__effect": np.exp(log_odds),
            "association__low": np.exp(log_odds - Z95 * error),
            "association__high": np.exp(log_odds + Z95 * error),
            "p": 2 * norm.sf(np.abs(log_odds) / error),
        }
    )


def _medians(values: Array, counts: Array) -> Array:
    """(K,) median of each row of counts; NaN for an empty one."""
    if not len(values):
        return np.full(len(counts), np.nan)
    half = counts.sum(axis=1, keepdims=True) / 2
    at = np.argmax(counts.cumsum(axis=1) >= half, axis=1)
    return np.where(half[:, 0] > 0, values[at], np.nan)


def _reasons(frame: pd.DataFrame, gates: Gates) -> list[str]:
    """Why a pair is not flagged; empty where it is."""
    reasons = []
    for row in frame.to_dict(orient="records"):
        low, q = row["association__low"], row["association__q"]
        if np.isnan(low):
            alike = row["images"] >= gates.class_images
            reason = (
                "all images are alike in it, or too few others have a value"
                if alike
                else f"{row['images']} images of the class, {gates.class_images} needed"
            )
        elif row["with_cue"] < gates.images:
            reason = f"{row['with_cue']:.0f} images with the cue, {gates.images} needed"
        elif not low > gates.odds_ratio:
            reason = f"odds ratio may be as low as {low:.2g}, {gates.odds_ratio:g} needed"
        elif not q < gates.q:
            reason = f"may be chance: q is not below {gates.q:g}"
        else:
            reason = ""
        reasons.append(reason)
    return reasons
