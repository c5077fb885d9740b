"""Maps made visible: normalise, suppress, upsample, lay over an image, draw grids of them.

Presentation only: what is stored and what is counted are the raw maps.
"""

from legrad.heatmaps.figure import SCALES, FigureRow, Scale, grid_figure
from legrad.heatmaps.overlay import heat_colours, overlay
from legrad.heatmaps.transforms import PUBLISHED_THRESHOLD, Box, normalize, suppress, upsample

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
