"""Search: images by text, stored query or likeness; one image in full; pictures; heat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
from aiohttp import web

from legrad.queries.query import Role
from pipeline.audit.names import has_maps
from pipeline.errors import UsageError, counted
from pipeline.report import embed
from pipeline.report.contents import Chosen
from pipeline.report.shown_images import read_grids
from pipeline.schema import (
    EMBEDDING,
    FETCH_COLUMNS,
    OWN_LABEL,
    PREDICTED_CLASS,
    PREDICTED_LABEL,
    score_column,
)
from pipeline.viewer.live_report import LivePages
from pipeline.viewer.pictures import SIDES
from pipeline.viewer.replies import given, page
from pipeline.viewer.search import ImageIndex, Ranking
from pipeline.viewer.search_request import Search, stored_query
from pipeline.viewer.view import View

PER_PAGE = 24
FORMATS = {
    "csv": "table (CSV)",
    "groups": "groups for GroupDRO (CSV)",
    "coco": "heat as masks (COCO)",
    "fiftyone": "FiftyOne dataset",
    "atlas": "map for Embedding Atlas",
}
"""What the images of a search can be saved as; see `pipeline.viewer.export_pages`."""
_FACTS = (
    *("label", "labels", PREDICTED_LABEL, "status", "error", "width", "height", "shard", "key"),
    "caption",
)
_CLASS_MAPS = {OWN_LABEL: "the class itself", PREDICTED_CLASS: "the predicted class"}
"""Maps of another class in each image, and what they are called."""


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""
    pages = _Search(view)
    return [
        web.get("/search", pages.search),
        web.get("/image", pages.image),
        web.get("/picture", pages.picture),
        web.get("/heat", pages.heat),
    ]


@dataclass(frozen=True)
class _Search:
    """Replies with images, pictures and heat."""

    view: View

    async def search(self, request: web.Request) -> web.Response:
        """A page of the images that were searched for."""
        view, search, problem = self.view, Search.of(request), ""
        try:
            index, found = await find(view, search, (search.number + 1) * PER_PAGE)
        except UsageError as error:
            problem = str(error)
            nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
            index, found = await view.index(), Ranking(*nothing, 0)
        return page(await view.work("index", _search_page, view, index, search, found, problem))

    async def image(self, request: web.Request) -> web.Response:
        """An image in full."""
        image_id, text = given(request.query, "id"), request.query.get("q", "").strip()
        return page(await self.view.work("index", _image_page, self.view, image_id, text))

    async def picture(self, request: web.Request) -> web.Response:
        """A small copy of an image."""
        side, image_id = request.query.get("side", ""), given(request.query, "id")
        if side not in map(str, SIDES):
            raise UsageError(f"side {side!r}: expected one of {', '.join(map(str, SIDES))}")
        copy = await self.view.work("pictures", self.view.pictures.copy, image_id, int(side))
        if copy.data is None:
            return web.Response(status=404, text=f"{copy.why}\n")
        # Another run may be served at the same port later; its cookie has another name.
        headers = {"Cache-Control": "private, max-age=3600", "Vary": "Cookie"}
        return web.Response(body=copy.data, content_type="image/webp", headers=headers)

    async def heat(self, request: web.Request) -> web.Response:
        """The heat of one or two texts in some images, for `late.js`."""
        texts, ids = (request.query.getall(name, []) for name in ("q", "id"))
        if not 0 < len(texts) <= 2 or not 0 < len(ids) <= PER_PAGE:
            raise UsageError(f"expected 1 or 2 texts (q) and 1 to {PER_PAGE} images (id)")
        rows = await self.view.work("pictures", self.view.pictures.rows, ids)
        found = await self.view.work("heat", self.view.texts.heat, texts, rows)
        packed = [[embed.packed(grid) for grid in of_image] for of_image in found]
        return web.json_response(
            [[[*map_, text] for map_, text in zip(of, texts, strict=False)] for of in packed]
        )


async def find(view: View, search: Search, first: int) -> tuple[ImageIndex, Ranking]:
    """The first images of a search.

    Raises:
        NotReadyError: what it needs is still being read.
        UsageError: the model or embeddings are needed and missing, or the condition is wrong.
        UnknownNameError: one of the images that others should be like does not exist.
    """
    index = await view.index()
    embeddings = await view.embeddings() if search.compares(view) else None
    thread = "texts" if search.late(view) else "index"
    scores = await view.work(thread, search.scores, view, index, embeddings)
    ranked = partial(index.ranked, scores, search.filters, first, lowest=search.lowest)
    return index, await view.work("index", ranked)


def _search_page(
    view: View,
    index: ImageIndex,
    search: Search,
    found: Ranking,
    problem: str,
) -> str:
    rows = found.rows[search.number * PER_PAGE :]
    ids = index.ids.take(rows).to_pylist()
    scores = found.scores[search.number * PER_PAGE :].tolist()
    heated = search.heated(view)
    stored = {key: name for key, name in heated.items() if has_maps(view.results, name)}
    of_classes = [name for name in _CLASS_MAPS if has_maps(view.results, name)]
    stored |= {name: name for name in of_classes}
    late = {} if view.texts.problem else {k: t for k, t in heated.items() if k in search.late(view)}
    pages = pages_with(view, ids)
    shown = {key: text for key, text in heated.items() if key in stored or key in late}
    titles = {key: pages.title(text) for key, text in shown.items()}
    return pages.render(
        "search.html",
        root="",
        search=search,
        counted=counted,
        chosen=[Chosen(name, score, np.nan) for name, score in zip(ids, scores, strict=True)],
        labels=index.labels_of(rows),
        total=found.total,
        first=search.number * PER_PAGE,
        here=search.address(),
        before=search.number - 1 if search.number else None,
        after=search.number + 1 if (search.number + 1) * PER_PAGE < found.total else None,
        problem=problem,
        unreadable=view.texts.problem,
        label_names=index.label_names,
        status_names=index.status_names,
        queries=[q.name for q in view.results.queries],
        columns=_plain_columns(view),
        formats=FORMATS,
        unstored=bool(search.text and not stored_query(view, search.text)),
        switches=titles | {name: _CLASS_MAPS[name] for name in of_classes},
        data={
            "grid": view.results.grid,
            "images": _maps(view, ids, stored),
            "ids": ids,
            "late": _late(late),
        },
    )


def _plain_columns(view: View) -> list[str]:
    """Columns that a person may want to put a condition on."""
    hidden = {EMBEDDING, *FETCH_COLUMNS}
    names = [name for name in view.results.rows.schema.names if name not in hidden]
    return [name for name in names if not name.startswith(("score__", "heatmap"))]


def pages_with(view: View, ids: Sequence[str]) -> LivePages:
    """Pages with the outlines of some images."""
    rows = zip(ids, view.pictures.rows(ids), strict=True)
    outlines = {name: view.pictures.outline(row) for name, row in rows}
    pages = LivePages(replace(view.bare_pages().report, pictures=outlines))
    pages.env.globals |= view.each_page
    return pages


def _maps(view: View, ids: Sequence[str], queries: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each image, key -> its stored map of a query as the script of the pages reads it."""
    grids = read_grids(view.results, dict.fromkeys(queries.values(), ids)) if ids else {}
    return [
        {
            key: [*embed.packed(grids[query, name]), query]
            for key, query in queries.items()
            if (query, name) in grids
        }
        for name in ids
    ]


def _late(texts: Mapping[str, str]) -> dict[str, Any]:
    """Keys of the texts that no query holds, and the address of their heat, for `late.js`."""
    address = urlencode([("q", text) for text in texts.values()])
    return {"kinds": list(texts), "address": f"heat?{address}"}


def _image_page(view: View, image_id: str, text: str) -> str:
    view.pictures.rows([image_id])  # raises if there is none
    names = [q.name for q in view.results.queries]
    baselines = {q.name for q in view.results.queries if q.role is Role.BASELINE}
    columns = [name for name in _FACTS if name in view.results.rows.schema.names]
    row = view.results.rows.select([image_id], [*columns, *map(score_column, names)]).to_pylist()[0]
    scores = [(name, row[score_column(name)]) for name in names]
    scores.sort(key=lambda pair: -np.inf if pair[1] is None else pair[1], reverse=True)
    ordered = sorted((name for name, _ in scores), key=lambda name: name in baselines)
    stored = [name for name in (*_CLASS_MAPS, *ordered) if has_maps(view.results, name)]
    maps = _maps(view, [image_id], dict(zip(stored, stored, strict=True)))
    query = stored_query(view, text)
    late = {} if query or not text or view.texts.problem else {"late": text}
    return pages_with(view, [image_id]).render(
        "image.html",
        root="",
        image=Chosen(image_id, np.nan, np.nan),
        facts={name: row[name] for name in columns if row[name] is not None},
        scores=scores,
        maps={**late, **{name: _CLASS_MAPS.get(name, name) for name in maps[0]}},
        chosen=query,
        data={
            "grid": view.results.grid,
            "images": maps,
            "ids": [image_id],
            "late": _late(late),
        },
    )
