"""A sheet of heatmaps: per row an image with the heat of its class, a cue and a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from legrad.heatmaps import FigureRow, grid_figure
from pipeline.results import Results

_CELL = 240


@dataclass(frozen=True)
class SheetRow:
    """One row of the sheet.

    Attributes:
        image_id: id of the image.
        queries: names of the queries, left to right.
        note: text beside the row, such as what was planted.
        outlines: query -> true mask, bool (height, width) of the picture, where it is known.
    """

    image_id: str
    queries: Sequence[str]
    note: str = ""
    outlines: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def draw_sheet(
    results: Results, rows: Sequence[SheetRow], columns: Sequence[str], path: Path, title: str
) -> None:
    """Write the sheet as a PNG.

    All maps of a row share one colour scale, from zero to the row's largest value, so that a weak
    map looks weak. A cyan line is the outline of a true mask.

    Args:
        results: source of maps and pictures.
        rows: rows of the sheet, top to bottom.
        columns: headings of the query columns.
        path: path of the PNG.
        title: headline.

    Raises:
        ValueError: there are no rows.
        KeyError: an image or a query does not exist.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row")
    scores = results.scores(sorted({query for row in rows for query in row.queries}))
    labels = results.images(columns=["label"])["label"]
    drawn = [_drawn(row, results, scores, str(labels[row.image_id])) for row in rows]
    figure = grid_figure(drawn, columns, title=title, cell=_CELL)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.save(path)


def _drawn(row: SheetRow, results: Results, scores: pd.DataFrame, label: str) -> FigureRow:
    picture = results.image(row.image_id)
    values = scores.loc[[row.image_id], list(row.queries)].to_numpy()[0]
    return FigureRow(
        heatmaps=[results.maps(query, [row.image_id])[1][0] for query in row.queries],
        image=picture,
        label=label,
        captions=[
            f"{query.replace('_', ' ')}  {value:+.2f}"
            for query, value in zip(row.queries, values, strict=True)
        ],
        note=row.note,
        box=results.preprocess.box(*picture.size),
        outlines={i: row.outlines[q] for i, q in enumerate(row.queries) if q in row.outlines},
    )
