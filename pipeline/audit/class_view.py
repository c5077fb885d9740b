"""Presence of the cues in each class where images are in several classes.

Presence is fitted with one class of every image (`Population.members`). Here the images are counted
in all of their classes: a class is compared with all images without it, and not with the sum of the
other classes, in which many images count twice.
"""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.audit.inference import Array, ratio
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.audit.split import confirming


@dataclass(frozen=True)
class Everyone:
    """All labelled images, each counted once, by C cues and B bins of the score.

    Attributes:
        counts: (C, B) images.
        present: (C, B) expected number of them with the cue.
    """

    counts: Array
    present: Array


@dataclass(frozen=True)
class ClassView:
    """Presence by class.

    Attributes:
        presence: histograms count an image in each of its classes; the probability of a class and
            a bin is the mean of its images; a class is unconfirmed if most of its images are.
        everyone: all images; None where each image is in one class, so that all images are the sum
            over the classes.
    """

    presence: Presence
    everyone: Everyone | None = None


def view_classes(
    results: Readable, population: Population, presence: Presence, halved: frozenset[str]
) -> ClassView:
    """Count presence by class, in one pass over the scores where images have sets of labels.

    Args:
        halved: cues of which only the confirming half of the images counts.
    """
    if not population.has_sets:
        return ClassView(presence)
    cues, classes, bins = presence.histograms.counts.shape
    counts, present = np.zeros((cues, classes, bins)), np.zeros((cues, classes, bins))
    everyone = Everyone(np.zeros((cues, bins)), np.zeros((cues, bins)))
    unconfirmed = np.zeros((cues, classes))
    names = presence.histograms.cues
    for batch in batches(results, population, names, ["image_id"] if halved else []):
        every = np.ones(len(batch.codes), bool)
        half = confirming(batch.table["image_id"].to_pylist()) if halved else every
        for cue, name in enumerate(names):
            counted = half if name in halved else every
            scores = batch.scores(name)
            bin_of = presence.histograms.bins(cue, scores)
            has_cue = presence.of(cue, batch.codes, scores).astype(np.float64)
            everyone.counts[cue] += np.bincount(bin_of[counted], minlength=bins)
            everyone.present[cue] += np.bincount(bin_of[counted], has_cue[counted], bins)
            inside = counted[batch.members.rows]
            rows, codes = batch.members.rows[inside], batch.members.codes[inside]
            cells, size = codes * bins + bin_of[rows], classes * bins
            counts[cue] += np.bincount(cells, minlength=size).reshape(classes, bins)
            present[cue] += np.bincount(cells, has_cue[rows], size).reshape(classes, bins)
            doubtful = presence.unconfirmed[cue, batch.codes[rows]].astype(np.float64)
            unconfirmed[cue] += np.bincount(codes, doubtful, classes)
    posterior = ratio(present, counts, empty=0.0)
    histograms = replace(presence.histograms, counts=counts.astype(np.float32))
    by_class = replace(
        presence,
        histograms=histograms,
        posterior=posterior.astype(np.float32),
        unconfirmed=unconfirmed > counts.sum(axis=2) / 2,
        threshold=_thresholds(presence, posterior),
    )
    return ClassView(by_class, everyone)


def _thresholds(presence: Presence, posterior: Array) -> Array:
    """(C, K) lower end of the first bin in which presence is likelier than absence."""
    likely = posterior > 0.5
    first = np.where(likely.any(axis=2), likely.argmax(axis=2), posterior.shape[2])
    histograms = presence.histograms
    result: Array = histograms.edges[:, :1] + first * histograms.width[:, None]
    return result
