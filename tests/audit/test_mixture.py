"""Fits of states: one state is not fitted to the last digit, two states are."""

import numpy as np
import pytest

from pipeline.audit import mixture, presence
from pipeline.audit.histograms import Histograms, HistogramSums
from pipeline.audit.presence import Presence
from pipeline.config.audit_settings import AuditConfig

CLASSES, EACH, BINS = 6, 400, 128
DISTANCES = (0.0, 0.0, 2.5, 4.5, 9.0)


def histograms() -> Histograms:
    """Scores of a cue for each distance, in three of ten images of the first class."""
    rng = np.random.default_rng(2)
    share = np.where(np.arange(CLASSES) == 0, 0.3, 0.05)[:, None]
    counts, edges = [], []
    for distance in DISTANCES:
        scores = rng.normal(size=(CLASSES, EACH)) + rng.normal(size=(CLASSES, 1))
        scores += distance * (rng.random(scores.shape) < share)
        low, high = scores.min(), scores.max()
        bins = [np.histogram(row, BINS, (low, high))[0] for row in scores]
        counts.append(bins)
        edges.append([low, high])
    names = tuple(f"cue {number}" for number in range(len(DISTANCES)))
    return Histograms(names, np.array(edges), np.array(counts, np.float32))


def measured(monkeypatch: pytest.MonkeyPatch, hopeless: float) -> tuple[Presence, int]:
    """Presence, and the number of steps of all fits."""
    steps, step = [0], mixture._step

    def counting(data: HistogramSums, found: mixture.Mixture) -> object:
        steps[0] += len(data.images)
        return step(data, found)

    with monkeypatch.context() as patched:
        patched.setattr(mixture, "_step", counting)
        patched.setattr(mixture, "_HOPELESS", hopeless)
        return presence.measure(histograms(), AuditConfig().gates, {}), steps[0]


def test_fits_that_are_left_early_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, all_steps = measured(monkeypatch, 0.0)
    quick, steps = measured(monkeypatch, mixture._HOPELESS)
    assert steps < 0.8 * all_steps
    assert quick.measured.tolist() == whole.measured.tolist()
    assert quick.measured.tolist() == [distance >= 4.5 for distance in DISTANCES]
    apart = np.array(DISTANCES) > mixture._HOPELESS
    assert quick.separation[apart] == pytest.approx(whole.separation[apart], rel=1e-9)
    assert quick.posterior[apart] == pytest.approx(whole.posterior[apart])
    assert (quick.separation[~apart] < mixture._HOPELESS).all()
