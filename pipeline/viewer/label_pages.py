"""Labelling: which pairs, the images that were drawn for one, answers, and what they say."""

import math
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.labelling.labelling import page_values, table_rows
from pipeline.labelling.tasks import choose_pairs
from pipeline.machine import user
from pipeline.viewer.label_file import find_task
from pipeline.viewer.replies import given, page, see, sent_json
from pipeline.viewer.view import Pair, View

FIRST = 50
"""Images that are drawn of a class at a time, and about as many of other classes."""


def routes(view: View) -> list[web.RouteDef]:
    """Addresses of these pages."""
    pages = _Labels(view)
    return [
        web.get("/label", pages.label),
        web.post("/draw", pages.draw),
        web.post("/answer", pages.answer),
        web.get("/estimate", pages.estimate),
    ]


@dataclass(frozen=True)
class _Labels:
    """Replies with images to label, and stores answers."""

    view: View

    async def label(self, request: web.Request) -> web.Response:
        """The images of a pair, or the pairs that may be labelled."""
        view, overview = self.view, await self.view.overview()
        audit = await view.audit()
        if "class" not in request.query:
            pairs = await view.work("audit", _pairs, view, audit)
            return page(overview.render("label_pairs.html", root="", rows=pairs))
        pair = _pair(audit, request.query)
        values = await view.work("audit", _label_values, view, audit, pair)
        return page(overview.render("label.html", root="", **values))

    async def draw(self, request: web.Request) -> web.Response:
        """Draw images of a pair."""
        form, audit = await request.post(), await self.view.audit()
        pair, count = _pair(audit, form), given(form, "number")
        if not count.isdecimal() or not 0 < int(count) <= 10_000:
            raise UsageError(f"number {count!r}: expected 1 to 10000")
        await self.view.work("audit", self.view.draw, audit, pair, int(count))
        return see(f"label?{urlencode({'class': pair[0], 'cue': pair[1]})}")

    async def answer(self, request: web.Request) -> web.Response:
        """Store a person's answers."""
        view, values, audit = self.view, await sent_json(request), await self.view.audit()
        pair, who = _pair(audit, values), str(values.get("who", "")).strip()
        said = values.get("answers")
        if not isinstance(said, list) or not said or not all(_is_answer(one) for one in said):
            raise UsageError("expected answers as a list of [image_id, answer]")

        def record() -> None:
            tasks = view.tasks(audit, pair)
            answers = [(find_task(tasks, name, pair[1]), text) for name, text in said]
            view.label_file.record(answers, who or user())

        await view.work("audit", record)
        return web.json_response({"stored": len(said)})

    async def estimate(self, request: web.Request) -> web.Response:
        """What the answers say about a pair."""
        audit = await self.view.audit()
        pair = _pair(audit, request.query)
        row = await self.view.work("audit", self.view.label_file.estimate, audit, *pair)
        finite = {k: v for k, v in (row or {}).items() if math.isfinite(v)}
        return web.json_response(finite or None)


def _pair(audit: Audit, values: Any) -> Pair:
    """The class and the cue, or decoy, that a request names."""
    cls, cue = given(values, "class"), given(values, "cue")
    if cls not in audit.classes or cue not in (*audit.cues, *audit.decoys):
        raise UsageError(f"there is no pair {cls!r}, {cue!r}")
    return cls, cue


def _is_answer(value: Any) -> bool:
    texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return texts and len(value) == 2


def _pairs(view: View, audit: Audit) -> list[dict[str, Any]]:
    """Pairs that were drawn for, then those that are worth it."""
    design, answers = view.label_file.design(audit), view.label_file.read()
    drawn = [(group, cue) for cue, group in design.groups if group in audit.classes]
    rows = []
    for cls, cue in dict.fromkeys([*drawn, *choose_pairs(audit, [], [])]):
        tasks = view.tasks(audit, (cls, cue))
        said = set(answers[answers["cue"] == cue]["image_id"])
        count = sum(task.image_id in said for task in tasks)
        rows.append({"class": cls, "cue": cue, "tasks": len(tasks), "answered": count})
    return rows


def _label_values(view: View, audit: Audit, pair: Pair) -> dict[str, Any]:
    tasks = view.tasks(audit, pair)
    values = page_values(audit, tasks, table_rows(tasks, view.label_file.read()))
    ids = list(dict.fromkeys(task.image_id for task in tasks))
    query = urlencode({"class": pair[0], "cue": pair[1]})
    values |= {
        "others": [],
        "pictures": [f"picture?side=384&id={quote(name, safe='')}" for name in ids],
        "why": [""] * len(ids),
        "live": {
            "answer": "answer",
            "estimate": f"estimate?{query}",
            "pair": {"class": pair[0], "cue": pair[1]},
        },
    }
    drawn = view.label_file.design(audit).groups.get((pair[1], pair[0]))
    return {
        "cls": pair[0],
        "cue": pair[1],
        "tasks": len(tasks),
        "data": values,
        "more": FIRST + (drawn.drawn if drawn else 0),
        "first": FIRST,
        "least": audit.settings.gates.labels,
    }
