"""Findings: the table, the page of a pair and of a class, verdicts; and the files of all pages."""

from importlib.resources import files
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from pipeline.audit.decisions import Waiver, read_day
from pipeline.errors import UsageError
from pipeline.machine import user
from pipeline.report import embed
from pipeline.viewer.live_report import LivePages, read_class, read_pair
from pipeline.viewer.replies import given, page, see
from pipeline.viewer.view import View

_TYPES = {".css": "text/css", ".js": "text/javascript"}


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""
    files_by_name = _assets()

    async def index(_: web.Request) -> web.Response:
        overview = await view.overview()
        return page(await view.work("audit", overview.index))

    async def pair(request: web.Request) -> web.Response:
        overview = await view.overview()
        number = _number(list(overview.pair_files.values()), request.match_info["name"])
        audit = await view.audit()
        values = (audit, overview, number, view.pictures, view.each_page)
        pages = await view.work("audit", read_pair, *values)
        row = pages.report.pairs[number].row
        waivers = await view.work("audit", view.waiver_file.read)
        own = [w for w in waivers if (w.cls, w.cue) == (row["class"], row["cue"])]
        pages.env.globals |= {"waiver": own[0] if own else None}
        return page(await view.work("audit", pages.pair, number))

    async def class_(request: web.Request) -> web.Response:
        overview = await view.overview()
        number = _number(list(overview.class_files.values()), request.match_info["name"])
        audit = await view.audit()
        values = (audit, overview, number, view.pictures, view.each_page)
        pages = await view.work("audit", read_class, *values)
        return page(await view.work("audit", pages.class_, pages.report.classes[number]))

    async def asset(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "table.js":
            overview = await view.overview()
            return web.Response(text=overview.table_script(), content_type="text/javascript")
        if name not in files_by_name:
            raise web.HTTPNotFound
        kind = _TYPES[name[name.rindex(".") :]]
        return web.Response(text=files_by_name[name], content_type=kind)

    async def verdict(request: web.Request) -> web.Response:
        form = await request.post()
        overview, audit = await view.overview(), await view.audit()
        cls, cue = _pair(overview, form)
        note, who = (str(form.get(name, "")).strip() for name in ("note", "who"))
        said = (cls, cue, given(form, "verdict"), note, who or user())
        await view.work("audit", audit.annotate, *said)
        view.reread()
        return see(f"pairs/{overview.pair_files[cls, cue]}.html#judge")

    async def waiver(request: web.Request) -> web.Response:
        form, overview = await request.post(), await view.overview()
        cls, cue = _pair(overview, form)
        expires = read_day(given(form, "expires"), "waiver")
        given_waiver = Waiver(cls, cue, given(form, "reason").strip(), expires)
        who = str(form.get("who", "")).strip()
        await view.work("audit", view.waiver_file.add, given_waiver, who or user())
        return see(f"pairs/{overview.pair_files[cls, cue]}.html#waiver")

    async def refresh(_: web.Request) -> web.Response:
        view.refresh()
        return see("index.html")

    return [
        web.get("/", index),
        web.get("/index.html", index),
        web.get("/pairs/{name}.html", pair),
        web.get("/classes/{name}.html", class_),
        web.get("/assets/{name}", asset),
        web.post("/verdict", verdict),
        web.post("/waiver", waiver),
        web.post("/refresh", refresh),
    ]


def _pair(overview: LivePages, form: MultiMapping[Any]) -> tuple[str, str]:
    pair = given(form, "class"), given(form, "cue")
    if pair not in overview.pair_files:
        raise UsageError(f"there is no pair {pair[0]!r}, {pair[1]!r}")
    return pair


def _number(names: list[str], name: str) -> int:
    if name not in names:
        raise web.HTTPNotFound
    return names.index(name)


def _assets() -> dict[str, str]:
    """Name -> text of every style and script; nothing else is served from a disk."""
    folders = [
        files("pipeline.report") / "static",
        files("pipeline.labelling") / "page",
        files("pipeline.viewer") / "static",
    ]
    texts = {
        file.name: file.read_text("utf-8")
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(tuple(_TYPES))
    }
    return texts | {"colours.js": embed.colours()}
