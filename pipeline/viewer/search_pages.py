"""Search: images by text, stored query or likeness; one image in full; pictures; lists of ids."""

import csv
import io
from dataclasses import dataclass, replace

import numpy as np
from aiohttp import web

from pipeline.audit.names import has_maps
from pipeline.errors import UsageError
from pipeline.report import embed
from pipeline.report.contents import Chosen
from pipeline.report.shown_images import read_grids
from pipeline.schema import OWN_LABEL, score_column
from pipeline.viewer.live_report import LivePages
from pipeline.viewer.pictures import SIDES
from pipeline.viewer.replies import given, page
from pipeline.viewer.search import Filters, ImageIndex, Ranking, Vector
from pipeline.viewer.view import View

PER_PAGE = 24
_FACTS = ("label", "status", "error", "width", "height", "shard", "key", "caption")


@dataclass(frozen=True)
class Search:
    """What a request searches for.

    Attributes:
        text: of the search box; empty for none.
        query: stored query that the text names, if it does.
        like: images; others like them are wanted.
        filters: labels and statuses.
        lowest: whether the lowest scores come first.
        number: of the page, from 0.
    """

    text: str
    query: str
    like: tuple[str, ...]
    filters: Filters
    lowest: bool
    number: int

    @classmethod
    def of(cls, request: web.Request, view: View) -> "Search":
        """Read the address."""
        values = request.query
        text, number = values.get("q", "").strip(), values.get("page", "0")
        return cls(
            text=text,
            query=_stored_query(view, text),
            like=tuple(values.getall("id", ())) if values.get("by") == "like" else (),
            filters=Filters(values.get("label", ""), values.get("status", "")),
            lowest=values.get("order") == "lowest",
            number=int(number) if number.isdecimal() and len(number) < 7 else 0,
        )

    def scores(self, view: View, index: ImageIndex) -> Vector | None:
        """(n,) score of every image; None where nothing is searched for."""
        if self.like:
            return index.similarity(index.mean_direction(self.like))
        if self.query:
            return index.query_scores(self.query)
        return index.similarity(view.texts.direction(self.text)) if self.text else None


def _stored_query(view: View, text: str) -> str:
    """Name of the query that a text is the name, the title or the only prompt of; or empty."""
    for query in view.results.queries:
        if text and text in (query.name, query.name.replace("_", " "), *query.prompts[:1]):
            return query.name
    return ""


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""

    async def ranked(search: Search, first: int) -> tuple[ImageIndex, Ranking]:
        index = await view.index()
        thread = "model" if search.text and not search.query and not search.like else "index"
        scores = await view.work(thread, search.scores, view, index)
        run = index.ranked
        found = await view.work(
            "index", lambda: run(scores, search.filters, first, lowest=search.lowest)
        )
        return index, found

    async def search_page(request: web.Request) -> web.Response:
        search, problem = Search.of(request, view), ""
        try:
            index, found = await ranked(search, (search.number + 1) * PER_PAGE)
        except UsageError as error:
            problem = str(error)
            search = replace(search, text="", like=())
            index, found = await ranked(search, PER_PAGE)
        make = lambda: _search_page(view, index, search, found, request, problem)  # noqa: E731
        return page(await view.work("index", make))

    async def image_page(request: web.Request) -> web.Response:
        image_id = given(request.query, "id")
        return page(await view.work("index", _image_page, view, image_id))

    async def picture(request: web.Request) -> web.Response:
        side = request.query.get("side", "")
        if side not in map(str, SIDES):
            raise UsageError(f"side {side!r}: expected one of {', '.join(map(str, SIDES))}")
        copy = await view.work(
            "pictures", view.pictures.copy, given(request.query, "id"), int(side)
        )
        if copy.data is None:
            return web.Response(status=404, text=f"{copy.why}\n")
        headers = {"Cache-Control": "private, max-age=3600"}
        return web.Response(body=copy.data, content_type="image/webp", headers=headers)

    async def selection(request: web.Request) -> web.Response:
        search, chosen = Search.of(request, view), request.query.getall("id", [])
        index, found = await ranked(search, len(view.results))
        return web.Response(
            text=await view.work("index", _csv, index, found, () if search.like else chosen),
            content_type="text/csv",
            headers={"Content-Disposition": 'attachment; filename="images.csv"'},
        )

    return [
        web.get("/search", search_page),
        web.get("/image", image_page),
        web.get("/picture", picture),
        web.get("/images.csv", selection),
    ]


def _search_page(
    view: View,
    index: ImageIndex,
    search: Search,
    found: Ranking,
    request: web.Request,
    problem: str,
) -> str:
    rows = found.rows[search.number * PER_PAGE :]
    ids = index.ids.take(rows).to_pylist()
    scores = found.scores[search.number * PER_PAGE :].tolist()
    chosen = [Chosen(name, score, np.nan) for name, score in zip(ids, scores, strict=True)]
    pages = _with_maps(view, chosen, search.query)
    here = [(k, v) for k, v in request.query.items() if k != "page"]
    return pages.render(
        "search.html",
        root="",
        search=search,
        chosen=chosen,
        labels=index.labels.take(rows).to_pylist(),
        total=found.total,
        first=search.number * PER_PAGE,
        here=here,
        before=search.number - 1 if search.number else None,
        after=search.number + 1 if (search.number + 1) * PER_PAGE < found.total else None,
        problem=problem or view.texts.problem,
        label_names=index.label_names,
        status_names=index.status_names,
        queries=[q.name for q in view.results.queries],
        switches=pages.switches(chosen, search.query),
        data={
            "grid": pages.report.grid,
            "images": embed.pictures(pages.report, chosen, search.query),
        },
    )


def _with_maps(view: View, chosen: list[Chosen], query: str) -> LivePages:
    """Pages with the outlines of some images and their maps of a query and of their class."""
    bare = view.bare_pages()
    ids = [image.image_id for image in chosen]
    stored = [name for name in (query, OWN_LABEL) if name and has_maps(view.results, name)]
    outlines = {
        name: view.pictures.outline(row)
        for name, row in zip(ids, view.pictures.rows(ids), strict=True)
    }
    grids = read_grids(view.results, dict.fromkeys(stored, ids)) if ids else {}
    pages = LivePages(replace(bare.report, pictures=outlines, grids=grids))
    pages.env.globals |= view.each_page
    return pages


def _image_page(view: View, image_id: str) -> str:
    view.pictures.rows([image_id])  # raises if there is none
    names = [q.name for q in view.results.queries]
    columns = [name for name in _FACTS if name in view.results.rows.schema.names]
    row = view.results.rows.select([image_id], [*columns, *map(score_column, names)]).to_pylist()[0]
    stored = [name for name in (OWN_LABEL, *names) if has_maps(view.results, name)]
    grids = read_grids(view.results, {name: [image_id] for name in stored})
    pages = _with_maps(view, [Chosen(image_id, np.nan, np.nan)], "")
    scores = [(name, row[score_column(name)]) for name in names]
    maps = {query: [*embed.packed(grid), query] for (query, _), grid in grids.items()}
    return pages.render(
        "image.html",
        root="",
        image=Chosen(image_id, np.nan, np.nan),
        facts={name: row[name] for name in columns if row[name] is not None},
        scores=sorted(scores, key=lambda pair: -(pair[1] if pair[1] is not None else -2)),
        maps=list(maps),
        data={"grid": pages.report.grid, "images": [maps]},
    )


def _csv(index: ImageIndex, found: Ranking, chosen: list[str]) -> str:
    """The chosen images of a ranking, or all of it, as a table."""
    ids = index.ids.take(found.rows).to_pylist()
    labels, statuses = (
        column.take(found.rows).to_pylist() for column in (index.labels, index.statuses)
    )
    wanted = set(chosen)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["image_id", "label", "status", "score"])
    for name, label, status, score in zip(
        ids, labels, statuses, found.scores.tolist(), strict=True
    ):
        if not wanted or name in wanted:
            table.writerow([name, label, status, "" if np.isnan(score) else f"{score:.6f}"])
    return text.getvalue()
