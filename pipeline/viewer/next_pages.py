"""The next run: texts and chosen images become its queries."""

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
    next_run = NextRun(view.results)

    async def show(request: web.Request) -> web.Response:
        text, ids = request.query.get("q", "").strip(), request.query.getall("id", [])

        def made() -> str:
            return pages_with(view, ids).render(
                "next.html",
                root="",
                queries=next_run.read(),
                text=text,
                chosen=[Chosen(name, float("nan"), float("nan")) for name in ids],
                outputs=next_run.outputs,
                notes=notes(view.results, FILE),
            )

        return page(await view.work("index", made))

    async def add(request: web.Request) -> web.Response:
        form = await request.post()
        title, ids = given(form, "title").strip(), [str(name) for name in form.getall("id", [])]
        if not title:
            raise UsageError("expected a text for the query")
        who = str(form.get("who", "")).strip() or user()
        direction = None
        if ids:
            rows = (await view.index()).find(ids)
            direction = (await view.embeddings()).mean_direction(rows)
        await view.work("index", next_run.add, title, who, direction)
        return see("next")

    async def remove(request: web.Request) -> web.Response:
        name = given(await request.post(), "name")
        await view.work("index", next_run.remove, name)
        return see("next")

    async def settings(_: web.Request) -> web.Response:
        text = await view.work("index", next_run.settings)
        disposition = {"Content-Disposition": f'attachment; filename="{FILE}"'}
        return web.Response(text=text, content_type="application/yaml", headers=disposition)

    return [
        web.get("/next", show),
        web.post("/promote", add),
        web.post("/demote", remove),
        web.get(f"/{FILE}", settings),
    ]
