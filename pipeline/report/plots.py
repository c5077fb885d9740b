"""Densities and forest plots as SVG, made when the report is.

matplotlib, for it is there anyway: the pages need no script for it, it prints as vectors, its
text is text, and its colours become those of the page, so that they follow light and dark.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"#010203": "ink", "#010204": "muted", "#010205": "line", "#010206": "accent"}
_INK, _MUTED, _LINE, _ACCENT = _COLOURS
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_WIDTH = 4.2  # inches
_LONGEST = 28


def densities(frame: pd.DataFrame, threshold: float, label: str) -> str:
    """Scores of a cue in a class and elsewhere, with the line between absent and present."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_RC):
        figure = Figure(figsize=(_WIDTH, 1.9), layout="constrained")
        axes = figure.subplots()
        x = frame["score"].to_numpy()
        for column, colour in (("elsewhere", _MUTED), ("in_class", _ACCENT)):
            y = _smooth(frame[column].to_numpy(float))
            axes.fill_between(x, y, facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=1.6)
        if np.isfinite(threshold):
            axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlabel("score of the cue (cosine)")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(bottom=0)
        return _svg(figure, f"Score densities of the cue in {label} and elsewhere")


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal areas, a bin's jumps rounded off: few images make bins jump."""
    total = values.sum()
    shares = values / total if total > 0 else values
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0])
    return np.convolve(shares, kernel / kernel.sum(), mode="same")


def forest(rows: pd.DataFrame, label: str) -> str:
    """Odds ratios of one cue in several classes with their 95 % intervals, this one in colour."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    rows = rows.iloc[::-1]
    places = np.arange(len(rows))
    mine = (rows["class"] == label).to_numpy()
    effect, low, high = (
        np.clip(rows[f"association__{field}"].to_numpy(float), 1e-2, 1e4)
        for field in ("effect", "low", "high")
    )
    with rc_context(_RC):
        figure = Figure(figsize=(_WIDTH, 0.75 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(1, color=_LINE, linewidth=1)
        for place, own in zip(places, mine, strict=True):
            colour = _ACCENT if own else _MUTED
            axes.plot([low[place], high[place]], [place, place], color=colour, linewidth=1.6)
            axes.plot(effect[place], place, "o", color=colour, markersize=6 if own else 4)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(places, [_short(str(c)) for c in rows["class"]], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("odds ratio: 1 = no association")
        return _svg(figure, "Odds ratios of this cue by class")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _svg(figure: "Figure", title: str) -> str:
    """An inline element whose colours are the page's; matplotlib escapes what it is given."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # measured by another font, drawn by the page's
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"(\d+\.\d)\d+", r"\1", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?![mp][0-9a-f]{10})[^"]*"', "", text)  # but what is pointed at
    text = re.sub(r"\s+", " ", text).replace("> <", "><")
    for sentinel, name in _COLOURS.items():
        text = text.replace(sentinel, f"var(--{name})")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
