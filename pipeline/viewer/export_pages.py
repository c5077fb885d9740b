"""The images of a search, all or the chosen ones, as a file for other tools."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from aiohttp import web

from pipeline.errors import UsageError
from pipeline.export import selection
from pipeline.viewer.search import ImageIndex, Ranking
from pipeline.viewer.search_pages import find
from pipeline.viewer.search_request import Search, stored_query
from pipeline.viewer.view import View

_FILES = {
    "csv": "images.csv",
    "groups": "groups.csv",
    "coco": "coco.json",
    "fiftyone": "fiftyone.zip",
    "atlas": "atlas.parquet",
}
_AUDITED = {
    "groups": selection.write_groups,
    "coco": selection.write_coco,
    "fiftyone": selection.zip_fiftyone,
}


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these files."""

    async def export(request: web.Request) -> web.Response:
        kind = request.query.get("format", "csv")
        if kind not in _FILES:
            raise UsageError(f"format {kind!r}: expected one of {', '.join(_FILES)}")
        search = Search.of(request)
        index, ranking = await find(view, search, len(view.results))
        chosen = request.query.getall("id", ())
        rows, images = _selected(view, index, ranking, search, chosen)
        write: Callable[..., Any]
        if kind in _AUDITED:
            thread, write = "audit", partial(_AUDITED[kind], await view.audit())
        elif kind == "atlas":
            thread, vectors = "index", (await view.embeddings()).of(rows)
            write = partial(_write_atlas, view, vectors)
        else:
            thread, write = "index", _write_csv
        name = _FILES[kind]
        with TemporaryDirectory(prefix="legrad-view-") as folder:
            file = Path(folder) / name
            await view.work(thread, write, images, file)
            content = file.open("rb")  # stays readable when the folder is removed
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=content, headers=disposition)

    return [web.get("/export", export)]


def _selected(
    view: View, index: ImageIndex, ranking: Ranking, search: Search, chosen: Any
) -> tuple[Any, pd.DataFrame]:
    """Row numbers and a table of the chosen images of a ranking, or of all of it."""
    images = pd.DataFrame(
        {
            "image_id": index.ids.take(ranking.rows).to_pylist(),
            "class": index.labels_of(ranking.rows),
            "cue": "" if search.other else stored_query(view, search.text),
            "status": index.statuses.take(ranking.rows).to_pylist(),
            "score": ranking.scores,
        }
    )
    if not len(chosen):
        return ranking.rows, images
    kept = images["image_id"].isin(chosen).to_numpy()
    return ranking.rows[kept], images[kept].reset_index(drop=True)


def _write_csv(images: pd.DataFrame, file: Path) -> None:
    table = images.drop(columns="cue").rename(columns={"class": "label"})
    table["score"] = table["score"].astype(np.float64).round(6)
    table.to_csv(file, index=False)


def _write_atlas(view: View, vectors: Any, images: pd.DataFrame, file: Path) -> None:
    selection.write_atlas(view.results, images, vectors, file)
