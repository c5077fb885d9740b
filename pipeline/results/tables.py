"""First tables over a run's results: what each class scores and where its heat lies."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from legrad.queries import Role
from pipeline.results.results import Results
from pipeline.schema import OWN_LABEL, Status, score_column

CUE_REGION = 0.10


def class_cue_table(results: Results) -> pd.DataFrame:
    """Mean score of each cue by label, and the heat of the class's own map on the cue.

    ``heat_enrichment`` is the mean heat of the label's class map over the strongest tenth of the
    cells of the cue's map, divided by its mean heat over the whole image: 1 is average. Described
    heat, not a test: it says nothing of other images, and smooth maps overlap by chance.

    Returns:
        One row a (label, cue): ``images`` (n), ``mean_score`` (cosine), ``score_lift`` (mean score
        minus the mean over all images, in standard deviations of the cue's score),
        ``heat_enrichment`` (NaN for a label without class query). Largest lift first. Rows that
        failed count nowhere; images without a label are under ``(none)``.
    """
    cues = [query.name for query in results.queries if query.role is Role.CUE]
    totals: dict[tuple[str, str], NDArray[np.float64]] = defaultdict(lambda: np.zeros(5))
    columns = ["label", "status", "width", "height"]
    for batch in results.batches([*cues, OWN_LABEL], columns):
        table = batch.filter(pc.equal(batch["status"], str(Status.OK)))
        if not table.num_rows:
            continue
        labels = table["label"].to_pandas().fillna("(none)").to_numpy()
        maps = {cue: results.decode(table, cue) for cue in cues}
        own, shown = results.decode(table, OWN_LABEL), results.shown(table)
        scores = {cue: table[score_column(cue)].to_numpy() for cue in cues}
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            for cue in cues:
                heat = heat_enrichment(own[rows], maps[cue][rows], shown=shown[rows])
                known = np.isfinite(heat)
                mine = scores[cue][rows].astype(np.float64)
                sums = [len(rows), mine.sum(), (mine**2).sum(), heat[known].sum(), known.sum()]
                totals[str(label), cue] += sums
    return _frame(totals)


def heat_enrichment(
    heat: NDArray[np.float32],
    region_of: NDArray[np.float32],
    share: float = CUE_REGION,
    shown: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Mean of (n, h, w) heat on the top cells of another map, over its mean; 1 is average.

    Args:
        heat: maps whose heat is measured.
        region_of: maps whose strongest ``share`` of cells is the region.
        shown: (n, h, w) cells that count, `Results.shown`; default all.

    Returns:
        (n,); NaN where either map is constant zero, or there is none.
    """
    flat = heat.reshape(len(heat), -1).astype(np.float64)
    guide = region_of.reshape(len(region_of), -1)
    counted = np.ones(flat.shape, bool) if shown is None else shown.reshape(flat.shape)
    cells = counted.sum(axis=1)
    order = np.argsort(np.where(counted, -guide, np.inf), axis=1, kind="stable")
    wanted = np.maximum(1, np.rint(share * cells))
    top = np.arange(flat.shape[1]) < wanted[:, None]
    inside = np.where(top, np.take_along_axis(flat, order, axis=1), 0).sum(axis=1) / wanted
    average = np.where(counted, flat, 0).sum(axis=1) / np.maximum(cells, 1)
    usable = (average > 0) & (guide.max(axis=1) > 0)
    return np.where(usable, inside / np.where(usable, average, 1), np.nan)


def _frame(totals: dict[tuple[str, str], NDArray[np.float64]]) -> pd.DataFrame:
    sums = pd.DataFrame.from_dict(
        totals, orient="index", columns=["images", "score", "squares", "heat", "known"]
    )
    sums.index = pd.MultiIndex.from_tuples(sums.index, names=["label", "cue"])
    every = sums.groupby("cue").sum()
    mean = every["score"] / every["images"]
    deviation = np.sqrt((every["squares"] / every["images"] - mean**2).clip(lower=0))
    frame = pd.DataFrame(
        {
            "images": sums["images"].astype(int),
            "mean_score": sums["score"] / sums["images"],
            "heat_enrichment": sums["heat"] / sums["known"].where(sums["known"] > 0),
        }
    )
    lift = (
        frame["mean_score"].sub(mean, level="cue").div(deviation.where(deviation > 0), level="cue")
    )
    frame.insert(2, "score_lift", lift)
    return frame.reset_index().sort_values("score_lift", ascending=False, ignore_index=True)
