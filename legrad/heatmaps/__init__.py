"""Show maps: normalise, suppress and upsample them, lay them over images, draw them in grids.

For presentation only: stored maps and all statistics are raw.
"""

from legrad.heatmaps.figure import SCALES, FigureRow, Scale, grid_figure
from legrad.heatmaps.overlay import heat_colours, overlay
from legrad.heatmaps.transforms import PUBLISHED_THRESHOLD, normalize, suppress, upsample
from legrad.preprocess import Box

__all__ = [
    "PUBLISHED_THRESHOLD",
    "SCALES",
    "Box",
    "FigureRow",
    "Scale",
    "grid_figure",
    "heat_colours",
    "normalize",
    "overlay",
    "suppress",
    "upsample",
]
