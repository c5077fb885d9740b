"""The next run: texts and chosen images become its queries."""

from dataclasses import dataclass

from aiohttp import web

from pipeline.errors import UsageError
from pipeline.machine import user
from pipeline.report.contents import Chosen
from pipeline.starter.promotion import notes
from pipeline.viewer.next_run import FILE, NextRun
from pipeline.viewer.replies import given, page, see
from pipeline.viewer.search_pages import pages_with
from pipeline.viewer.view import View


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""
    pages = _NextRun(view, NextRun(view.results))
    return [
        web.get("/next", pages.show),
        web.post("/promote", pages.add),
        web.post("/demote", pages.remove),
        web.get(f"/{FILE}", pages.settings),
    ]


@dataclass(frozen=True)
class _NextRun:
    """Replies with the list of queries, and changes it."""

    view: View
    next_run: NextRun

    async def show(self, request: web.Request) -> web.Response:
        """The list, and what may be added to it."""
        text, ids = request.query.get("q", "").strip(), request.query.getall("id", [])

        def made() -> str:
            return pages_with(self.view, ids).render(
                "next.html",
                root="",
                queries=self.next_run.waiting(),
                text=text,
                chosen=[Chosen(name, float("nan"), float("nan")) for name in ids],
                outputs=self.next_run.outputs,
                notes=notes(self.view.results, FILE),
            )

        return page(await self.view.work("index", made))

    async def add(self, request: web.Request) -> web.Response:
        """Add a text, or the mean direction of images."""
        form = await request.post()
        title, ids = given(form, "title").strip(), [str(name) for name in form.getall("id", [])]
        if not title:
            raise UsageError("expected a text for the query")
        who = str(form.get("who", "")).strip() or user()
        direction = None
        if ids:
            rows = (await self.view.index()).find(ids)
            direction = (await self.view.embeddings()).mean_direction(rows)
        await self.view.work("index", self.next_run.add, title, who, direction)
        return see("next")

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a query."""
        name = given(await request.post(), "name")
        await self.view.work("index", self.next_run.remove, name)
        return see("next")

    async def settings(self, _: web.Request) -> web.Response:
        """The settings of the next run, as a file."""
        text = await self.view.work("index", self.next_run.settings)
        disposition = {"Content-Disposition": f'attachment; filename="{FILE}"'}
        return web.Response(text=text, content_type="application/yaml", headers=disposition)
