"""What results look like in a notebook."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from legrad.heatmaps import FigureRow, grid_figure
from legrad.queries.query import Query
from pipeline.results import maps, pictures
from pipeline.results.opened import Opened
from pipeline.schema import score_column

if TYPE_CHECKING:
    from PIL import Image

_MOST_QUERIES = 24
_MOST_IMAGES = 40
_TRY = (
    ".images()",
    ".scores([...])",
    ".top(query, 10)",
    ".maps(query)",
    ".figure(image_ids, queries)",
    ".sql('select ... from images')",
)


def html(results: Opened) -> str:
    """A card: what was run, how much there is, the queries, what to call next."""
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
    calls = ", ".join(f"<code>{escape(call)}</code>" for call in _TRY)
    return (
        f"<table>{rows}</table><table><thead><tr><th>query</th><th>role</th><th>what</th></tr>"
        f"</thead><tbody>{lines}</tbody></table>{rest}<p>{calls}</p>"
    )


def _meaning(query: Query) -> str:
    if query.difference:
        return " minus ".join(query.difference)
    if query.images:
        return f"{len(query.images)} exemplar images"
    return query.vector or "; ".join(query.prompts) or query.name.replace("_", " ")


def figure(results: Opened, image_ids: Sequence[str], queries: Sequence[str]) -> "Image.Image":
    """The pictures and their heat: an image a row, a query a column, one colour scale a column."""
    if not 0 < len(image_ids) <= _MOST_IMAGES or not queries:
        raise ValueError(f"figure: expected 1 to {_MOST_IMAGES} image ids, and queries")
    heat = {query: _maps(results, query, image_ids) for query in queries}
    known = [query for query in queries if query in {q.name for q in results.queries}]
    table = results.rows.select(image_ids, ["label", *map(score_column, known)])
    rows = []
    for i, image_id in enumerate(image_ids):
        picture = pictures.original(results, image_id)
        scores = {query: table[score_column(query)][i].as_py() for query in known}
        captions = [f"{scores[q]:+.3f}" if scores.get(q) is not None else "" for q in queries]
        rows.append(
            FigureRow(
                heatmaps=[heat[query][i] for query in queries],
                image=picture,
                label=table["label"][i].as_py() or "",
                captions=captions,
                box=results.run_of(queries[0]).preprocess.box(*picture.size),
            )
        )
    return grid_figure(rows, [query.replace("_", " ") for query in queries], scale="column")


def _maps(results: Opened, query: str, image_ids: Sequence[str]) -> NDArray[np.float32]:
    """(n, h, w) raw maps of some images; a map that was not kept is drawn without heat."""
    chosen = maps.Chosen(results.rows, {query: results.run_of(query)}, image_ids, None)
    _, stored = maps.read(chosen, normalized=False, size=None)
    return np.nan_to_num(stored)
