"""Everything about one class and one cue, as frames: densities, images, cues beside it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from pipeline.audit.findings import Findings
from pipeline.results.results import Results
from pipeline.schema import Status, score_column

ORDERS = ("score", "presence", "class_score", "image_id")
_SHOWN_BINS = 64


@dataclass(frozen=True)
class Pair:
    """A class and a cue.

    Attributes:
        finding: its row of the ranking, claims and all.
        densities: score, in_class, elsewhere (densities over the score).
        threshold: score from which presence is likelier than absence in this class; NaN where
            presence is not measured.
        beside: other cues that come with this one, see `Cooccurrence.beside`.
        verdict: what people said of it: verdict, note, who, when; empty if nobody did.
    """

    finding: pd.Series
    densities: pd.DataFrame
    threshold: float
    beside: pd.DataFrame
    verdict: dict[str, str]


def densities(found: Findings, cue: int) -> pd.DataFrame:
    """Score densities of a cue in every class, one row a (class, bin).

    Returns:
        Columns class, score (middle of a bin), density (integrates to 1 over the score), with_cue
        (the part of the density that is taken for present; NaN if not measured), threshold.
    """
    histograms = found.presence.histograms
    counts = histograms.counts[cue].astype(np.float64)
    share = counts * found.presence.posterior[cue]
    factor = max(1, counts.shape[1] // _SHOWN_BINS)
    edges = np.arange(0, counts.shape[1], factor)
    width = float(histograms.width[cue]) * factor
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    density = np.add.reduceat(counts, edges, axis=1) / total / width
    present = np.add.reduceat(share, edges, axis=1) / total / width
    low = float(histograms.edges[cue, 0])
    scores = low + (np.arange(len(edges)) + 0.5) * width
    known = bool(found.presence.measured[cue])
    classes = np.array(found.known.classes, dtype=object)
    return pd.DataFrame(
        {
            "class": np.repeat(classes, len(edges)),
            "score": np.tile(scores, len(classes)),
            "density": density.ravel(),
            "with_cue": present.ravel() if known else np.nan,
            "threshold": np.repeat(
                found.presence.threshold[cue] if known else np.full(len(classes), np.nan),
                len(edges),
            ),
        }
    )


def compared(found: Findings, cue: int, code: int) -> pd.DataFrame:
    """Columns score, in_class, elsewhere: densities of a class and of all the others."""
    every = densities(found, cue)
    sizes = pd.Series(dict(zip(found.known.classes, found.known.sizes, strict=True)))
    label = found.known.classes[code]
    mine = every["class"] == label
    weighted = every["density"] * every["class"].map(sizes)
    rest = weighted[~mine].groupby(every["score"]).sum() / max(sizes.drop(label).sum(), 1)
    frame = every.loc[mine, ["score", "density"]].rename(columns={"density": "in_class"})
    frame["elsewhere"] = rest.reindex(frame["score"]).fillna(0.0).to_numpy()
    return frame.reset_index(drop=True)


def images(
    results: Results, found: Findings, place: tuple[int, int], own: str | None
) -> pd.DataFrame:
    """The class's explained images by image_id: score, presence, class_score, where they lie.

    Args:
        place: of cue and class.
        own: the class's own query, if it has one.
    """
    cue, code = place
    name, label = found.presence.histograms.cues[cue], found.known.classes[code]
    columns = {"image_id": "image_id", "shard": "shard", "key": "key"}
    columns |= {"score": score_column(name)} | ({"class_score": score_column(own)} if own else {})
    frame: pd.DataFrame = results.dataset.to_table(
        columns={title: ds.field(column) for title, column in columns.items()},
        filter=(ds.field("label") == label) & (ds.field("status") == str(Status.OK)),
    ).to_pandas()
    codes = np.full(len(frame), code)
    scores = frame["score"].to_numpy(float)
    frame["presence"] = (
        found.presence.of(cue, codes, scores) if found.presence.measured[cue] else np.nan
    )
    if own is None:
        frame["class_score"] = np.nan
    order = ["score", "presence", "class_score", "shard", "key"]
    return frame.set_index("image_id")[order]


def ordered(
    frame: pd.DataFrame, present: bool | None, sort: str, limit: int | None
) -> pd.DataFrame:
    """Some rows of `images`, by one of `ORDERS`, highest first."""
    if present is not None:
        frame = frame[(frame["presence"] > 0.5) == present]
    if sort == "image_id":
        frame = frame.sort_index()
    else:
        frame = frame.sort_values([sort, "image_id"], ascending=[False, True])
    return frame.head(limit) if limit is not None else frame
