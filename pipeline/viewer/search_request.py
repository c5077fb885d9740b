"""What the address of a search page asks for."""

from dataclasses import dataclass

import numpy as np
from aiohttp import web

from pipeline.viewer.embeddings import Embeddings, Vector
from pipeline.viewer.search import Filters, ImageIndex
from pipeline.viewer.view import View

_FILTERS = ("label", "status", "where")


@dataclass(frozen=True)
class Search:
    """What a request searches for.

    Attributes:
        text: text of the search box; empty for none.
        other: text that it is compared with: its scores are subtracted; empty for none.
        like: images; others like them are wanted.
        filters: labels, statuses and a condition.
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
        like = values.getall("id" if values.get("by") == "like" else "like", ())
        text, other = ("" if like else values.get(name, "").strip() for name in ("q", "than"))
        return cls(
            text=text,
            other=other if text else "",
            like=tuple(like),
            filters=Filters(*(values.get(name, "").strip() for name in _FILTERS)),
            lowest=values.get("order") == "lowest",
            number=int(number) if number.isdecimal() and len(number) < 7 else 0,
        )

    def address(self) -> list[tuple[str, str]]:
        """The parts of an address that asks for the same, without the page's number."""
        texts = [("q", self.text), ("than", self.other), *(("like", name) for name in self.like)]
        filters = zip(_FILTERS, vars(self.filters).values(), strict=True)
        order = ("order", "lowest" if self.lowest else "")
        return [(name, value) for name, value in (*texts, *filters, order) if value]

    def scores(self, view: View, index: ImageIndex, embeddings: Embeddings | None) -> Vector | None:
        """(n,) score of every image; None where nothing is searched for.

        Args:
            embeddings: needed where `compares` says so.
        """
        if self.like and embeddings:
            return _known(index, embeddings.similarity(self.direction(index, embeddings)))
        texts = [text for text in (self.text, self.other) if text]
        scores = [_text_scores(view, index, embeddings, text) for text in texts]
        return scores[0] - scores[1] if len(scores) > 1 else scores[0] if scores else None

    def direction(self, index: ImageIndex, embeddings: Embeddings) -> Vector:
        """(E,) unit vector of the mean direction of the images that others should be like."""
        return embeddings.mean_direction(index.find(self.like))

    def compares(self, view: View) -> bool:
        """Whether images are compared with something, for which their embeddings are needed."""
        return bool(self.like or self.late(view))

    def heated(self, view: View) -> dict[str, str]:
        """The texts whose heat the page shows: key -> stored query or text."""
        texts = {} if self.like else {"cue": self.text, "other": self.other}
        return {key: stored_query(view, text) or text for key, text in texts.items() if text}

    def late(self, view: View) -> list[str]:
        """Keys of the texts that no query holds, which need the model."""
        names = {query.name for query in view.results.queries}
        return [key for key, text in self.heated(view).items() if text not in names]


def _text_scores(view: View, index: ImageIndex, embeddings: Embeddings | None, text: str) -> Vector:
    query = stored_query(view, text)
    if query or embeddings is None:
        return index.query_scores(query)
    return _known(index, embeddings.similarity(view.texts.direction(text)))


def _known(index: ImageIndex, scores: Vector) -> Vector:
    scores[~index.explained()] = np.nan
    return scores


def stored_query(view: View, text: str) -> str:
    """Name of the query that a text is the name, the title or the first prompt of; or empty."""
    for query in view.results.queries:
        if text and text in (query.name, query.name.replace("_", " "), *query.prompts[:1]):
            return query.name
    return ""
