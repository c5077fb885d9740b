"""What the address of a search page asks for."""

from dataclasses import dataclass

from aiohttp import web

from pipeline.viewer.search import Filters, ImageIndex, Vector
from pipeline.viewer.view import View


@dataclass(frozen=True)
class Search:
    """What a request searches for.

    Attributes:
        text: text of the search box; empty for none.
        other: text that it is compared with: its scores are subtracted; empty for none.
        like: images; others like them are wanted.
        filters: labels and statuses.
        lowest: whether the lowest scores come first.
        number: number of the page, from 0.
    """

    text: str
    other: str
    like: tuple[str, ...]
    filters: Filters
    lowest: bool
    number: int

    @classmethod
    def of(cls, request: web.Request) -> "Search":
        """Read the address."""
        values = request.query
        number = values.get("page", "0")
        text, other = (values.get(name, "").strip() for name in ("q", "than"))
        return cls(
            text=text,
            other=other if text else "",
            like=tuple(values.getall("id", ())) if values.get("by") == "like" else (),
            filters=Filters(values.get("label", ""), values.get("status", "")),
            lowest=values.get("order") == "lowest",
            number=int(number) if number.isdecimal() and len(number) < 7 else 0,
        )

    def scores(self, view: View, index: ImageIndex) -> Vector | None:
        """(n,) score of every image; None where nothing is searched for."""
        if self.like:
            return index.similarity(index.mean_direction(self.like))
        if not self.text:
            return None
        scores = _text_scores(view, index, self.text)
        return scores - _text_scores(view, index, self.other) if self.other else scores

    def heated(self, view: View) -> dict[str, str]:
        """The texts whose heat the page shows: key -> stored query or text."""
        texts = {} if self.like else {"cue": self.text, "other": self.other}
        return {key: stored_query(view, text) or text for key, text in texts.items() if text}

    def late(self, view: View) -> list[str]:
        """Keys of the texts that no query holds, which need the model."""
        names = {query.name for query in view.results.queries}
        return [key for key, text in self.heated(view).items() if text not in names]


def _text_scores(view: View, index: ImageIndex, text: str) -> Vector:
    query = stored_query(view, text)
    return index.query_scores(query) if query else index.similarity(view.texts.direction(text))


def stored_query(view: View, text: str) -> str:
    """Name of the query that a text is the name, the title or the first prompt of; or empty."""
    for query in view.results.queries:
        if text and text in (query.name, query.name.replace("_", " "), *query.prompts[:1]):
            return query.name
    return ""
