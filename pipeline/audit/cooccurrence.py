"""Which cues occur together, overall and within each class, counted in one pass over the scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population, Readable, batches
from pipeline.config.audit_settings import Gates


@dataclass(frozen=True)
class Cooccurrence:
    """Joint presence of the M measured cues in K classes.

    Attributes:
        cues: (M,) indices of the measured cues among all cues.
        present: (K, M) sum of presence probabilities.
        together: (K, M, M) sum of their products.
        images: (K,) number of images.
        everyone: the same of all images as the only class, where images are in several classes.
    """

    cues: NDArray[np.int64]
    present: Array
    together: Array
    images: Array
    everyone: "Cooccurrence | None" = None

    @classmethod
    def empty(cls, cues: NDArray[np.int64], classes: int) -> "Cooccurrence":
        """Counts of no images."""
        present = np.zeros((classes, len(cues)))
        together = np.zeros((classes, len(cues), len(cues)))
        return cls(cues, present, together, np.zeros(classes))

    def add(self, code: int, rows: NDArray[np.float32]) -> None:
        """Count images of a class by their presence probabilities (n, M)."""
        self.present[code] += rows.sum(axis=0, dtype=np.float64)
        self.together[code] += rows.T @ rows
        self.images[code] += len(rows)

    def phi(self, within: int | None = None) -> Array:
        """(M, M) correlation of presence, over all images or within a class; NaN if constant."""
        if within is None and self.everyone is not None:
            return self.everyone.phi()
        classes = slice(None) if within is None else [within]
        images = max(float(self.images[classes].sum()), 1.0)
        mean = self.present[classes].sum(axis=0) / images
        covariance = self.together[classes].sum(axis=0) / images - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        scale = np.outer(deviation, deviation)
        return np.where(scale > 1e-9, covariance / np.where(scale > 1e-9, scale, 1), np.nan)

    def beside(self, cue: int, within: int, names: Sequence[str]) -> pd.DataFrame:
        """How the other measured cues go with one cue, the strongest correlation in a class first.

        Args:
            cue: index of the cue among all cues.
            within: code of the class.
            names: names of all cues.

        Returns:
            Columns ``cue``; ``phi_in_class``, ``phi_overall``: correlations; ``share_with``,
            ``share_without``: share of the class's images with (without) the cue that have the
            other one. Empty if the cue is not measured.
        """
        columns = ["cue", "phi_in_class", "phi_overall", "share_with", "share_without"]
        if cue not in self.cues:
            return pd.DataFrame(columns=columns)
        row = int(np.flatnonzero(self.cues == cue)[0])
        images, present = self.images[within], self.present[within]
        both, with_cue = self.together[within, row], present[row]
        table = pd.DataFrame(
            {
                "cue": [names[other] for other in self.cues],
                "phi_in_class": self.phi(within)[row],
                "phi_overall": self.phi()[row],
                "share_with": both / max(with_cue, 1e-9),
                "share_without": (present - both) / max(images - with_cue, 1e-9),
            }
        ).drop(index=row)
        order = table["phi_in_class"].abs().sort_values(ascending=False).index
        return table.loc[order].reset_index(drop=True)


def count_together(results: Readable, population: Population, presence: Presence) -> Cooccurrence:
    """Count joint presence in one pass over the scores of the measured cues."""
    cues = np.flatnonzero(presence.measured)
    names = [presence.histograms.cues[cue] for cue in cues]
    classes, count = len(population.classes), len(cues)
    everyone = Cooccurrence.empty(cues, 1) if population.has_sets else None
    counts = replace(Cooccurrence.empty(cues, classes), everyone=everyone)
    if not count:
        return counts
    for batch in batches(results, population, names):
        present = np.empty((len(batch.codes), count), dtype=np.float32)
        for column, (cue, name) in enumerate(zip(map(int, cues), names, strict=True)):
            present[:, column] = presence.of(cue, batch.codes, batch.scores(name))
        if everyone is not None:
            everyone.add(0, present)
        order = np.argsort(batch.members.codes, kind="stable")
        codes, rows = batch.members.codes[order], batch.members.rows[order]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(codes)], strict=True):
            counts.add(int(codes[start]), present[rows[start:end]])
    return counts


def echoes(counts: Cooccurrence, presence: Presence, gates: Gates) -> dict[int, str]:
    """Cues whose presence repeats that of a better separated cue: index -> reason to leave it out.

    A model that raises the score of "a logo" wherever there is a watermark gives the logo two
    states as well. Cues with a threshold from the user are never left out.
    """
    phi = np.nan_to_num(np.abs(counts.phi()))
    separation = presence.separation[counts.cues]
    reasons = {}
    for row, cue in enumerate(counts.cues):
        better = np.where(separation > separation[row], phi[row], 0)
        other = int(better.argmax())
        if better[other] > gates.echo:
            name = presence.histograms.cues[counts.cues[other]]
            reasons[int(cue)] = (
                f"its presence goes with that of {name} (correlation {better[other]:.2f}), which "
                "the model sees more clearly: either an echo of it, or always found beside it. "
                "Labelled examples or a threshold would decide"
            )
    return reasons
