"""Positions in the plots of a pair's page."""

import numpy as np
import pandas as pd
import pytest

from pipeline.report.plots import density_values, forest_values


def test_ticks_of_scores_stand_where_they_say() -> None:
    scores = np.linspace(-0.13, 0.37, 51)
    frame = pd.DataFrame({"score": scores, "in_class": 1.0, "elsewhere": scores**2})
    plot = density_values(frame, 0.45)
    span = 0.45 + 0.13
    axis = plot["axis"]
    assert len(axis.ticks) > 2
    for x, text in axis.ticks:
        share = (float(text) + 0.13) / span
        assert x == pytest.approx(axis.left + share * (axis.right - axis.left))
    assert plot["threshold"] == pytest.approx(axis.right)
    assert density_values(frame, float("nan"))["threshold"] is None


def test_odds_ratios_stand_on_a_logarithmic_axis() -> None:
    rows = pd.DataFrame(
        {
            "class": ["a" * 40, "b", "c", "not measured"],
            "association__effect": [10.0, 1.0, 1e9, np.nan],
            "association__low": [1.0, 0.1, 0.0, np.nan],
            "association__high": [100.0, 10.0, np.inf, np.nan],
        }
    )
    plot = forest_values(rows, "b")
    first, second, third = plot["rows"]
    ticks = {text: x for x, text in plot["axis"].ticks}
    assert [row.own for row in plot["rows"]] == [False, True, False]
    assert len(first.label) < 40
    assert second.effect == pytest.approx(plot["one"]) == pytest.approx(ticks["1"])
    assert first.effect == pytest.approx(ticks["10"])
    assert second.high - second.effect == pytest.approx(first.high - first.effect)
    assert plot["axis"].left <= third.low < third.high <= plot["axis"].right
