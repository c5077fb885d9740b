"""Score densities and odds ratios as SVG plots, drawn when the report is written.

The templates ``density.svg`` and ``forest.svg`` draw them. The plots need no script, print as
vectors, keep their text as text, and take the colours of the page, in light and dark. This file
computes the positions; axis ticks are chosen by matplotlib.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
_WIDTH, _EDGE = 420, 10
_DENSITY_HEIGHT, _AXIS_HEIGHT = 150, 44
_ROW_HEIGHT = 24
_CHARACTER = 6.8
"""Approximate width of a character in a label, in units of the plot."""
_LONGEST = 28
_ODDS_RANGE = (1e-2, 1e4)


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        left, right: its ends, in units of the plot.
        ticks: position and text of each tick.
    """

    left: float
    right: float
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class ForestRow:
    """A class in a forest plot.

    Attributes:
        label: the class, shortened.
        y: centre of its row.
        low, effect, high: positions of the interval's ends and of the odds ratio.
        own: whether the page is about this class.
    """

    label: str
    y: float
    low: float
    effect: float
    high: float
    own: bool


def density_values(frame: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Values for ``density.svg``: scores of a cue in a class and in all other images.

    Args:
        frame: columns ``score``, ``in_class`` and ``elsewhere``.
        threshold: score from which the cue counts as present; NaN for none.
    """
    from matplotlib.ticker import MaxNLocator

    scores = frame["score"].to_numpy(float)
    low, high = float(scores.min()), float(scores.max())
    if np.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    ticks = np.asarray(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    to_x, axis = _axis(_EDGE, ticks[(ticks >= low) & (ticks <= high)], low, high)
    curves = {name: _smooth(frame[name].to_numpy(float)) for name in ("elsewhere", "in_class")}
    top = max(float(curve.max(initial=0.0)) for curve in curves.values()) or 1.0
    areas = {}
    for name, curve in curves.items():
        heights = _DENSITY_HEIGHT - (_DENSITY_HEIGHT - _EDGE) * curve / top
        areas[name] = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in zip(to_x(scores), heights, strict=True)
        )
    return {
        "width": _WIDTH,
        "height": _DENSITY_HEIGHT + _AXIS_HEIGHT,
        "base": _DENSITY_HEIGHT,
        "axis": axis,
        "areas": areas,
        "first": float(to_x(scores[0])),
        "last": float(to_x(scores[-1])),
        "threshold": float(to_x(threshold)) if np.isfinite(threshold) else None,
    }


def _smooth(values: Array) -> Array:
    """A density with its area scaled to one and its jumps from bin to bin smoothed.

    Small classes have few images in a bin, so that their densities jump.
    """
    total = values.sum()
    shares = values / total if total > 0 else values
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0])
    return np.convolve(shares, kernel / kernel.sum(), mode="same")


def forest_values(rows: pd.DataFrame, label: str) -> dict[str, Any]:
    """Values for ``forest.svg``: odds ratios of one cue in several classes with 95 % intervals.

    Args:
        rows: rows of the ranking, top to bottom; those without an odds ratio are left out.
        label: the class that the page is about.
    """
    from matplotlib.ticker import LogLocator

    rows = rows[rows["association__effect"].notna() & rows["association__low"].notna()]
    effect, low, high = (
        np.log10(np.clip(rows[f"association__{field}"].to_numpy(float), *_ODDS_RANGE))
        for field in ("effect", "low", "high")
    )
    names = [_shortened(str(name)) for name in rows["class"]]
    margin = 0.03 * max(1.0, float(high.max() - low.min()))
    start, end = min(0.0, float(low.min())) - margin, max(0.0, float(high.max())) + margin
    ticks = np.log10(LogLocator(10).tick_values(10**start, 10**end))
    left = _EDGE + _CHARACTER * max(map(_columns, names)) + 12
    to_x, axis = _axis(left, ticks[(ticks >= start) & (ticks <= end)], start, end, power=True)
    ends = np.column_stack([to_x(values) for values in (low, effect, high)]).tolist()
    base = _EDGE + _ROW_HEIGHT * len(rows)
    return {
        "width": _WIDTH,
        "height": base + _AXIS_HEIGHT,
        "base": base,
        "axis": axis,
        "one": float(to_x(0.0)),
        "rows": [
            ForestRow(name, _EDGE + _ROW_HEIGHT * (number + 0.5), left, middle, right, cls == label)
            for number, (name, (left, middle, right), cls) in enumerate(
                zip(names, ends, rows["class"].astype(str), strict=True)
            )
        ],
    }


def _axis(
    left: float, ticks: Array, low: float, high: float, *, power: bool = False
) -> tuple[Callable[[Any], Any], Axis]:
    """The function from values to positions, and the axis; ``power``: values are powers of 10."""
    right, span = _WIDTH - _EDGE, (high - low) or 1.0

    def to_x(values: Any) -> Any:
        return left + (np.asarray(values) - low) / span * (right - left)

    texts = [f"{10.0**tick:g}" if power else f"{tick:g}" for tick in np.round(ticks, 9)]
    return to_x, Axis(left, right, list(zip(to_x(ticks).tolist(), texts, strict=True)))


def _columns(text: str) -> int:
    """Width of a text in characters; wide ones, such as Chinese, count twice."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
