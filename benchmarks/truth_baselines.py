"""Simpler scores of the same data sets, as baselines; higher scores are more suspicious."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB

from benchmarks.truth_pool import CUES, Pool
from benchmarks.truth_sets import World
from pipeline.audit.evidence import overlap_excess
from pipeline.reliance.probe import FOLDS, Probe, groups

_OVERLAP_IMAGES = 100
_FLAGGED_BELOW = 0.3  # cleanlab's threshold


def overlap(pool: Pool, world: World) -> pd.DataFrame:
    """Mean overlap excess of class and cue maps, one row per (class, cue)."""
    labels = np.array(world.labels)
    centred = {query: _centred(maps[world.pool_rows]) for query, maps in pool.maps.items()}
    rows = []
    for label, name in world.cell.labels.items():
        images = np.flatnonzero(labels == label)[:_OVERLAP_IMAGES]
        for cue in CUES:
            excess = overlap_excess(centred[name][images], centred[cue][images])
            rows.append((label, cue, float(excess.mean())))
    return pd.DataFrame(rows, columns=["class", "cue", "overlap"])


def _centred(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    shares = maps / np.maximum(maps.sum(axis=1, keepdims=True), 1e-12)
    shares = shares - shares.mean(axis=1, keepdims=True)
    result: NDArray[np.float64] = (shares - shares.mean(axis=0)).astype(np.float64)
    return result


def b2t(pool: Pool, world: World, probes: list[Probe], classes: tuple[str, ...]) -> pd.DataFrame:
    """The score of Bias-to-text (Kim et al. 2024), for the errors of the cross-fitted probe.

    It is the mean similarity of a cue to images that are wrongly assigned to a class, minus that to
    images that are rightly not assigned to it; 0 for a class without errors.
    """
    vectors = pool.embeddings[world.pool_rows]
    ids = world.dataset.to_table(columns=["image_id"])["image_id"].to_pylist()
    fold = groups(ids) % FOLDS
    predicted = np.zeros(len(ids), dtype=np.int64)
    for number, probe in enumerate(probes):
        weights, offsets = probe.classifier()
        predicted[fold == number] = (vectors[fold == number] @ weights.T + offsets).argmax(axis=1)
    truth = np.array([classes.index(label) for label in world.labels])
    scores = world.dataset.to_table(columns=[f"score__{cue}" for cue in CUES]).to_pandas()
    rows = []
    for code, label in enumerate(classes):
        wrong = (predicted == code) & (truth != code)
        right = (predicted != code) & (truth != code)
        for cue in CUES:
            values = scores[f"score__{cue}"].to_numpy()
            gap = values[wrong].mean() - values[right].mean() if wrong.any() else 0.0
            rows.append((label, cue, float(gap)))
    return pd.DataFrame(rows, columns=["class", "cue", "b2t"])


def photometric(pool: Pool, world: World) -> bool:
    """Whether cleanlab's score would flag the data set for any of four photometric properties.

    The documented formula: ``min(1, (1 - accuracy) / (1 - majority share))`` of a Gaussian naive
    Bayes classifier on one property, in five folds. It names neither class nor cue.
    """
    labels = np.array(world.labels)
    _, counts = np.unique(labels, return_counts=True)
    base = counts.max() / counts.sum()
    for values in pool.photometry[world.pool_rows].T:
        predicted = cross_val_predict(GaussianNB(), values[:, None], labels, cv=5)
        if min(1.0, (1 - (predicted == labels).mean()) / (1 - base)) < _FLAGGED_BELOW:
            return True
    return False
