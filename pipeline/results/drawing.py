"""Results as pictures: originals fetched again, heat over them, and the card in a notebook."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from legrad import heatmaps
from legrad.heatmaps import FigureRow, grid_figure
from legrad.preprocess import to_rgb
from legrad.queries.query import Query
from pipeline.errors import UnknownNameError, UsageError
from pipeline.results.answers import Selection, maps
from pipeline.results.opened import Opened
from pipeline.results.rows import ID
from pipeline.results.run import Run
from pipeline.schema import FETCH_COLUMNS, Status, score_column

_MOST_QUERIES = 24
_MOST_IMAGES = 40
_CALLS = (
    ".images()",
    ".scores([...])",
    ".top(query, 10)",
    ".maps(query)",
    ".view(query)",
    ".figure(image_ids, queries)",
    ".sql('select ... from images')",
)


def original(results: Opened, image_id: str) -> Image.Image:
    """The upright RGB original."""
    return _fetch(*_locate(results, image_id))


def overlay(results: Opened, image_id: str, query: str, peak: float | None) -> Image.Image:
    """The original with a query's heat over it."""
    run = results.run_of(query)
    home, row = _locate(results, image_id)
    if row["status"] != Status.OK:
        raise UsageError(f"{image_id}: no map, its status is {row['status']}: {row['error']}")
    table = results.rows.select([image_id], run.map_columns([query]))
    heat = run.decode(table, query)[0]
    if np.isnan(heat).any():
        raise UsageError(f"{image_id}: no map of {query}, the run kept others (store.maps)")
    picture = _fetch(home, row)
    return heatmaps.overlay(picture, heat, peak=peak, box=run.preprocess.box(*picture.size))


def figure(results: Opened, image_ids: Sequence[str], queries: Sequence[str]) -> Image.Image:
    """Pictures and their heat: an image per row, a query per column, a colour scale per column.

    A map that was not kept is drawn without heat.
    """
    if not 0 < len(image_ids) <= _MOST_IMAGES or not queries:
        raise ValueError(f"figure: expected 1 to {_MOST_IMAGES} image ids, and queries")
    runs = {query: results.run_of(query) for query in queries}
    heat = {
        query: np.nan_to_num(maps(Selection(results.rows, {query: run}, image_ids))[1])
        for query, run in runs.items()
    }
    scored = [query for query in queries if query in {q.name for q in results.queries}]
    table = results.rows.select(image_ids, ["label", *map(score_column, scored)])
    rows = []
    for i, image_id in enumerate(image_ids):
        picture = original(results, image_id)
        scores = {query: table[score_column(query)][i].as_py() for query in scored}
        captions = [f"{scores[q]:+.3f}" if scores.get(q) is not None else "" for q in queries]
        rows.append(
            FigureRow(
                heatmaps=[heat[query][i] for query in queries],
                image=picture,
                label=table["label"][i].as_py() or "",
                captions=captions,
                boxes=[runs[query].preprocess.box(*picture.size) for query in queries],
            )
        )
    return grid_figure(rows, [query.replace("_", " ") for query in queries], scale="column")


def card(results: Opened) -> str:
    """HTML for a notebook: the runs, the number of images, the queries, and methods to call."""
    facts = {"images": f"{len(results):,}"}
    for run in results.runs:
        about = run.manifest["metadata"].get("model", {})
        complete = "complete" if run.folder.complete.exists() else "not complete: committed so far"
        model = " ".join(str(about[k]) for k in ("name", "pretrained") if about.get(k))
        h, w = run.grid
        facts[run.folder.uri] = f"{complete}; {model}; maps of {h} x {w} cells"
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in facts.items()
    )
    queries = results.queries
    lines = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(t)}</td>" for t in line) + "</tr>"
        for line in (
            (query.name, str(query.role), _meaning(query)) for query in queries[:_MOST_QUERIES]
        )
    )
    more = len(queries) - _MOST_QUERIES
    rest = f"<p>... and {more} more: <code>.queries</code></p>" if more > 0 else ""
    calls = ", ".join(f"<code>{escape(call)}</code>" for call in _CALLS)
    return (
        f"<table>{rows}</table><table><thead><tr><th>query</th><th>role</th><th>meaning</th></tr>"
        f"</thead><tbody>{lines}</tbody></table>{rest}<p>{calls}</p>"
    )


def _meaning(query: Query) -> str:
    if query.difference:
        return " minus ".join(query.difference)
    if query.images:
        return f"{len(query.images)} exemplar images"
    texts = query.vector or "; ".join(query.prompts) or query.name.replace("_", " ")
    others = query.distinct if isinstance(query.distinct, tuple) else ()
    return f"{texts} (distinct from {len(others)} other texts)" if others else texts


def _locate(results: Opened, image_id: str) -> tuple[Run, dict[str, Any]]:
    """The first run that has an image, and the columns that say where its bytes are."""
    for run in results.runs:
        table = run.rows.select([image_id], [ID, *FETCH_COLUMNS, "status", "error"])
        row: dict[str, Any] = table.to_pylist()[0]
        if row[ID] is not None:
            return run, row
    raise UnknownNameError(f"no image {image_id!r} in {results.uri}")


def _fetch(run: Run, row: dict[str, Any]) -> Image.Image:
    with run.origin.open(row) as image:
        return to_rgb(image)
