"""Findings: the table, the page of a pair and of a class, verdicts; and the files of all pages."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from pipeline.audit.decisions import Waiver, read_day
from pipeline.errors import UnknownNameError, UsageError
from pipeline.report import embed
from pipeline.report.words import slug
from pipeline.viewer.live_report import LivePages, read_class, read_pair
from pipeline.viewer.replies import given, page, see
from pipeline.viewer.view import View

_TYPES = {".css": "text/css", ".js": "text/javascript"}


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""
    pages, decisions = _Findings(view, _assets()), _Decisions(view)
    return [
        web.get("/", pages.index),
        web.get("/index.html", pages.index),
        web.get("/pairs/{name}.html", pages.pair),
        web.get("/classes/{name}.html", pages.class_),
        web.get("/assets/{name}", pages.asset),
        web.post("/verdict", decisions.verdict),
        web.post("/waiver", decisions.waiver),
        web.post("/refresh", decisions.refresh),
    ]


@dataclass(frozen=True)
class _Findings:
    """Replies with what was found.

    Attributes:
        view: the output.
        assets: name -> text of a style or a script.
    """

    view: View
    assets: dict[str, str]

    async def index(self, _: web.Request) -> web.Response:
        """The table of all findings."""
        overview = await self.view.overview()
        return page(await self.view.work("audit", overview.index))

    async def pair(self, request: web.Request) -> web.Response:
        """A class and a cue, with the verdict and the waiver that they have now."""
        view, overview = self.view, await self.view.overview()
        number = _number(list(overview.pair_files.values()), request.match_info["name"])
        values = (await view.audit(), overview, number, view.pictures, view.each_findings_page)
        pages = await view.work("audit", read_pair, *values)
        row = pages.report.pairs[number].row
        waivers = await view.work("audit", view.waiver_file.read)
        own = [w for w in waivers if (w.cls, w.cue) == (row["class"], row["cue"])]
        pages.env.globals |= {"waiver": own[0] if own else None}
        return page(await view.work("audit", pages.pair, number))

    async def class_(self, request: web.Request) -> web.Response:
        """A class."""
        view, overview = self.view, await self.view.overview()
        number = _number(list(overview.class_files.values()), request.match_info["name"])
        values = (await view.audit(), overview, number, view.pictures, view.each_findings_page)
        pages = await view.work("audit", read_class, *values)
        return page(await view.work("audit", pages.class_, pages.report.classes[number]))

    async def asset(self, request: web.Request) -> web.Response:
        """A style or a script; the values of the table are one, too."""
        name = request.match_info["name"]
        if name == "table.js":
            overview = await self.view.overview()
            return web.Response(text=overview.table_script(), content_type="text/javascript")
        if name not in self.assets:
            raise web.HTTPNotFound
        kind = _TYPES[name[name.rindex(".") :]]
        return web.Response(text=self.assets[name], content_type=kind)


@dataclass(frozen=True)
class _Decisions:
    """Stores what people decide about a pair, and leads back to its page."""

    view: View

    async def verdict(self, request: web.Request) -> web.Response:
        """Core, spurious or unsure."""
        form, overview = await request.post(), await self.view.overview()
        cls, cue = _pair(overview, form)
        note, who = (str(form.get(name, "")).strip() for name in ("note", "who"))
        said = (cls, cue, given(form, "verdict"), note, who)
        await self.view.work("audit", (await self.view.audit()).annotate, *said)
        self.view.reread()
        return see(f"pairs/{overview.pair_files[cls, cue]}.html#judge")

    async def waiver(self, request: web.Request) -> web.Response:
        """Accepted until a day."""
        form, overview = await request.post(), await self.view.overview()
        cls, cue = _pair(overview, form)
        expires = read_day(given(form, "expires"), "waiver")
        given_waiver = Waiver(cls, cue, given(form, "reason").strip(), expires)
        who = str(form.get("who", "")).strip()
        await self.view.work("audit", self.view.waiver_file.add, given_waiver, who)
        return see(f"pairs/{overview.pair_files[cls, cue]}.html#waiver")

    async def refresh(self, request: web.Request) -> web.Response:
        """Compute the findings again, with the answers of now; leads to the pair that is named."""
        form = await request.post()
        pair = [str(form[name]) for name in ("class", "cue") if name in form]
        self.view.refresh()
        return see(f"pairs/{slug(*pair)}.html" if len(pair) == 2 else "index.html")


def _pair(overview: LivePages, form: MultiMapping[Any]) -> tuple[str, str]:
    pair = given(form, "class"), given(form, "cue")
    if pair not in overview.pair_files:
        raise UsageError(f"there is no pair {pair[0]!r}, {pair[1]!r}")
    return pair


def _number(names: list[str], name: str) -> int:
    if name not in names:
        raise UnknownNameError(
            f"There is no page {name}. Findings that were computed with other settings or answers "
            "may have had it."
        )
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
