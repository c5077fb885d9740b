"""The benchmark's table as a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, OURS, THEIRS, BOUND = "#1f2328", "#0969da", "#bc4c00", "#8c959f"


@dataclass(frozen=True)
class Rate:
    """Maps per second by number of queries; the bound follows from the machine's sgemm rate."""

    queries: int
    ours: float
    bound: float
    theirs: float | None = None


def draw_rates(rates: Sequence[Rate], title: str, path: Path) -> None:
    """Plot maps per second by number of queries, on two logarithmic axes."""
    figure = Figure(figsize=(7, 4.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    known = [rate for rate in rates if rate.theirs is not None]
    everywhere = [rate.queries for rate in rates]
    lines = (
        ("sgemm bound", BOUND, everywhere, [rate.bound for rate in rates]),
        ("closed form", OURS, everywhere, [rate.ours for rate in rates]),
        ("published", THEIRS, [r.queries for r in known], [r.theirs or 0 for r in known]),
    )
    for name, colour, across, up in lines:
        if not across:
            continue
        style = ":" if colour == BOUND else "-"
        axes.plot(across, up, style, color=colour, marker="o", markersize=4, linewidth=1.8)
        offset = (8, 7) if colour == BOUND else (8, -9)
        axes.annotate(
            f"{name}\n{up[-1]:.3g}/s",
            (across[-1], up[-1]),
            xytext=offset,
            textcoords="offset points",
            color=colour,
            va="center",
            size=9,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(everywhere, [str(count) for count in everywhere])
    axes.set_xlim(everywhere[0] * 0.8, everywhere[-1] * 4)
    axes.set_xlabel("queries per image", color=INK)
    axes.set_ylabel("maps per second", color=INK)
    axes.set_title(title, loc="left", size=10, color=INK)
    axes.grid(visible=True, which="major", color="#d0d7de", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
