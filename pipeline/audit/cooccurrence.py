"""Which cues come together, overall and within each class; one pass over their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.aggregate import Population, Readable, batches
from pipeline.audit.histogram_sums import Array
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import Gates


@dataclass(frozen=True)
class Cooccurrence:
    """Presence of the measured cues, in pairs.

    Attributes:
        cues: (M,) places of the measured cues.
        present: (K, M) sum of presence probabilities by class.
        together: (K, M, M) sum of their products.
        images: (K,).
    """

    cues: NDArray[np.int64]
    present: Array
    together: Array
    images: Array

    def phi(self, within: int | None = None) -> Array:
        """(M, M) correlation of presence, over all images or within a class; NaN where constant."""
        classes = slice(None) if within is None else [within]
        images = max(float(self.images[classes].sum()), 1.0)
        mean = self.present[classes].sum(axis=0) / images
        covariance = self.together[classes].sum(axis=0) / images - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        scale = np.outer(deviation, deviation)
        return np.where(scale > 1e-9, covariance / np.where(scale > 1e-9, scale, 1), np.nan)

    def beside(self, cue: int, within: int, names: Sequence[str]) -> pd.DataFrame:
        """Other cues beside one: phi in the class and over all images, strongest in the class.

        Returns:
            Columns cue, phi_in_class, phi_overall, share_with, share_without: how many of the
            class's images with (without) the cue have the other one.
        """
        columns = ["cue", "phi_in_class", "phi_overall", "share_with", "share_without"]
        found = np.flatnonzero(self.cues == cue)
        if not len(found):
            return pd.DataFrame(columns=columns)
        place = int(found[0])
        images, present = self.images[within], self.present[within]
        both = self.together[within, place]
        having = present[place]
        table = pd.DataFrame(
            {
                "cue": [names[other] for other in self.cues],
                "phi_in_class": self.phi(within)[place],
                "phi_overall": self.phi()[place],
                "share_with": both / max(having, 1e-9),
                "share_without": (present - both) / max(images - having, 1e-9),
            }
        ).drop(index=place)
        order = table["phi_in_class"].abs().sort_values(ascending=False).index
        return table.loc[order].reset_index(drop=True)


def count_together(results: Readable, known: Population, presence: Presence) -> Cooccurrence:
    """Read the scores of all measured cues once."""
    names = presence.histograms.cues
    places = np.flatnonzero(presence.measured)
    classes, count = len(known.classes), len(places)
    found = Cooccurrence(
        places,
        np.zeros((classes, count)),
        np.zeros((classes, count, count)),
        np.zeros(classes),
    )
    if not count:
        return found
    for batch in batches(results, known, [names[place] for place in places]):
        order = np.argsort(batch.codes, kind="stable")
        codes = batch.codes[order]
        having = np.empty((len(codes), count), dtype=np.float32)
        for column, place in enumerate(map(int, places)):
            having[:, column] = presence.of(place, codes, batch.scores(names[place])[order])
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
            rows, code = having[start:end], codes[start]
            found.present[code] += rows.sum(axis=0, dtype=np.float64)
            found.together[code] += rows.T @ rows
            found.images[code] += end - start
    return found


def echoes(found: Cooccurrence, presence: Presence, gates: Gates) -> dict[int, str]:
    """Cues (by place) whose presence is that of a better separated one, and why they are left out.

    A model that raises "a logo" wherever there is a watermark has two states for the logo as well.
    Cues with a threshold of the user's are taken as they are.
    """
    phi = np.nan_to_num(np.abs(found.phi()))
    separation = presence.separation[found.cues]
    reasons = {}
    for mine, place in enumerate(found.cues):
        better = np.where(separation > separation[mine], phi[mine], 0)
        other = int(better.argmax())
        if better[other] > gates.echo:
            name = presence.histograms.cues[found.cues[other]]
            reasons[int(place)] = (
                f"it goes with {name} (correlation {better[other]:.2f}), which the model sees "
                "more clearly: an echo of it, or always beside it. Labelled examples or a "
                "threshold would settle it"
            )
    return reasons
