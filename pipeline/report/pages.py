"""HTML pages from templates; every value is escaped, because names of classes may hold HTML."""

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.report import embed, plots, words
from pipeline.report.contents import Chosen, ClassPage, Report
from pipeline.schema import OWN_LABEL

CARDS = 6
"""Findings that the first page shows with pictures."""
CARD_PICTURES = 3


class Pages:
    """Renders the pages of one report.

    Attributes:
        pair_files, class_files: file names of the pages, without folder and extension.
        picture_files: image_id -> path from the report's root.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.pair_files = {
            pair: words.slug(*pair)
            for pair in ((str(page.row["class"]), str(page.row["cue"])) for page in report.pairs)
        }
        self.class_files = {page.label: words.slug(page.label) for page in report.classes}
        copied = (name for name, copy in sorted(report.pictures.items()) if copy.data is not None)
        self.picture_files = {n: f"pictures/{i:05d}.webp" for i, n in enumerate(copied, 1)}

    @staticmethod
    def loader() -> jinja2.BaseLoader:
        """Where the templates are."""
        return jinja2.PackageLoader("pipeline.report")

    @cached_property
    def env(self) -> jinja2.Environment:
        """The templates, with the filters and names that they use."""
        env = jinja2.Environment(
            loader=self.loader(),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        for name in ("percent", "odds", "chance", "signed", "points", "score", "amount"):
            env.filters[name] = getattr(words, name)
        env.filters["title"] = self.title
        env.filters["json"] = lambda value: Markup(embed.to_json(value))  # noqa: S704 - escaped
        env.globals |= {
            "report": self.report,
            "head": self.report.head,
            "sentence": lambda row: words.sentence(row, self.title(row["cue"])),
            "exact_sentence": words.exact_sentence,
            "word_of": words.word_of,
            "state": words.state,
            "why": words.why,
            "unit": words.unit,
            "claim_names": words.CLAIM_NAMES,
            "short_names": words.SHORT_NAMES,
            "claims": list(self.report.head.meanings),
            "asked": self.asked,
            "flagged": self.flagged,
            "class_files": self.class_files,
            "pair_files": self.pair_files,
            "picture": self.picture,
            "address": self.address,
        }
        return env

    @cached_property
    def asked(self) -> list[str]:
        """Claims that the audit tested."""
        table = self.report.table
        return [claim for claim in self.report.head.meanings if embed.asked(table, claim)]

    @cached_property
    def flagged(self) -> dict[str, int]:
        """Claim -> number of flagged pairs."""
        table = self.report.table
        return {claim: int(table[f"{claim}__flag"].sum()) for claim in self.report.head.meanings}

    def title(self, query: str) -> str:
        """The name of a query for people."""
        return self.report.titles.get(query, query)

    def picture(self, image: Chosen) -> dict[str, Any]:
        """Values of an image for a template."""
        copy = self.report.pictures.get(image.image_id)
        left, top, width, height = copy.box if copy else (0.0, 0.0, 1.0, 1.0)
        size = copy.size if copy else (1, 1)
        place = f"left:{left:.2%};top:{top:.2%};width:{width:.2%};height:{height:.2%}"
        return {
            "id": image.image_id,
            "score": image.score,
            "file": self.picture_files.get(image.image_id),
            "page": None,
            "aspect": f"aspect-ratio:{size[0]}/{size[1]}",
            "place": place,
        }

    def address(self, row: Mapping[str, Any]) -> str:
        """Address of the page of a pair, from the first page; empty where it has none."""
        file = self.pair_files.get((str(row["class"]), str(row["cue"])))
        return f"pairs/{file}.html" if file else ""

    def index(self) -> str:
        """The first page: the strongest findings, and the ranked table."""
        flagged = [page for page in self.report.pairs if page.row["association__flag"]]
        cards: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        for page in flagged[:CARDS]:
            examples = page.ends.high[:CARD_PICTURES]
            cards.append({"page": page, "pictures": list(enumerate(examples, len(shown)))})
            shown += embed.pictures(self.report, examples, str(page.row["cue"]))
        data = {"grid": self.report.grid, "images": shown}
        return self.render("index.html", root="", cards=cards, data=data)

    def table_script(self) -> str:
        """The values of the table as a script, because ``fetch`` does not work on file://."""
        values = embed.table_values(self.report, self.pair_files)
        values["class_pages"] = [self.class_files.get(name, "") for name in values["classes"]]
        return f"window.legradTable = {embed.to_json(values)};\n"

    def pair(self, number: int) -> str:
        """The page of a class and a cue; ``number`` counts from 0."""
        page = self.report.pairs[number]
        cls, cue = str(page.row["class"]), str(page.row["cue"])
        chosen = (*page.ends.high, *page.ends.low)
        files = list(self.pair_files.values())
        measured = page.row["association__effect"] == page.row["association__effect"]
        return self.render(
            "pair.html",
            root="../",
            page=page,
            cls=cls,
            cue=cue,
            known=page.threshold == page.threshold,
            density=plots.density_values(page.densities, page.threshold)
            if len(page.densities)
            else None,
            forest=plots.forest_values(page.elsewhere, cls) if measured else None,
            switches=self.switches(chosen, cue),
            data={
                "grid": self.report.grid,
                "images": embed.pictures(self.report, chosen, cue),
            },
            before=files[number - 1] if number else None,
            after=files[number + 1] if number + 1 < len(files) else None,
            verdict=self._verdict(cls, cue),
        )

    def switches(self, chosen: Sequence[Chosen], cue: str) -> dict[str, str]:
        """Queries whose heat the reader can choose: key -> title."""
        names = {"cue": cue, "class": OWN_LABEL, "baseline": self.report.baseline or ""}
        titles = {"cue": self.title(cue), "class": "the class itself"}
        titles["baseline"] = f"a baseline: {self.title(names['baseline'])}"
        stored = {query for query, _ in self.report.grids}
        return {k: titles[k] for k, query in names.items() if query in stored and chosen}

    def _verdict(self, cls: str, cue: str) -> str:
        """The command that records a verdict."""
        return shlex.join([*self.report.command, "--verdict", cls, cue, "spurious"])

    def class_(self, page: ClassPage) -> str:
        """The page of a class."""
        shown: list[Mapping[str, Any]] = []
        galleries = []
        for cue, ends in page.galleries.items():
            numbered = []
            for chosen in (ends.high, ends.low):
                numbered.append(list(enumerate(chosen, len(shown))))
                shown += embed.pictures(self.report, chosen, cue)
            galleries.append({"cue": cue, "high": numbered[0], "low": numbered[1]})
        data = {
            "grid": self.report.grid,
            "images": shown,
            "means": embed.mean_maps(page.maps),
        }
        files = list(self.class_files.values())
        number = files.index(self.class_files[page.label])
        return self.render(
            "class.html",
            root="../",
            page=page,
            galleries=galleries,
            data=data,
            before=files[number - 1] if number else None,
            after=files[number + 1] if number + 1 < len(files) else None,
        )

    def render(self, template: str, **values: Any) -> str:
        """A page from a template."""
        return self.env.get_template(template).render(**values)
