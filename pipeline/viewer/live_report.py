"""The report's pages, rendered when they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import numpy as np
import pandas as pd

from pipeline.audit.names import Names, dataset_name
from pipeline.audit.overview import Overview
from pipeline.audit.ranking import DecoyCheck
from pipeline.auditor import Audit
from pipeline.report import choice
from pipeline.report.contents import Chosen, ClassPage, Ends, Limits, PairPage, Report, records
from pipeline.report.gather import (
    baseline_query,
    class_page,
    discovered_rows,
    end_grids,
    exact_rows,
    gallery_cues,
    identity,
    pair_page,
    suspicious_rows,
    titles,
)
from pipeline.report.pages import CARD_PICTURES, CARDS, Pages
from pipeline.report.shown_images import edit_pictures
from pipeline.results import Results
from pipeline.viewer.pictures import Pictures

_EACH = 12
"""Pictures at each end of a pair's scores."""


class LivePages(Pages):
    """Pages of a report whose pictures the server provides."""

    @staticmethod
    def loader() -> jinja2.BaseLoader:
        """The viewer's templates, and the report's behind them and below ``report/``."""
        report = jinja2.PackageLoader("pipeline.report")
        viewer = jinja2.PackageLoader("pipeline.viewer")
        label = jinja2.PackageLoader("pipeline.labelling", "page")
        folders = {"report": report, "labelling": label}
        return jinja2.ChoiceLoader([viewer, report, jinja2.PrefixLoader(folders)])

    def picture(self, image: Chosen) -> dict[str, Any]:
        """Values of an image for a template."""
        name = quote(image.image_id, safe="")
        addresses = {"file": f"picture?side=192&id={name}", "page": f"image?id={name}"}
        return super().picture(image) | addresses

    def address(self, row: Mapping[str, Any]) -> str:
        """Address of the page of a pair; a decoy has none, so the page on which to label it."""
        pair = {"class": str(row["class"]), "cue": str(row["cue"])}
        return super().address(row) or f"label?{urlencode(pair)}"


def read_overview(
    audit: Audit, pictures: Pictures, each_page: dict[str, Any], command: Sequence[str]
) -> LivePages:
    """The first page's values. Every pair has a page to be judged on, but no content yet.

    Args:
        audit: the audit.
        pictures: pictures of its images.
        command: as in `Report`.
        each_page: names that every template may use.
    """
    table = audit.rank()
    first = table[table["association__flag"]].head(CARDS)
    pairs = first[["class", "cue"]].itertuples(index=False, name=None)
    ends = choice.find_ends(audit.results, audit.findings, dict.fromkeys(pairs, CARD_PICTURES))
    empty = pd.DataFrame()
    report = Report(
        head=audit.summary,
        identity=identity(audit),
        limits=Limits(each=_EACH),
        grid=audit.results.grid,
        table=table,
        titles=titles(audit.results),
        pairs=[
            PairPage(
                row=row,
                densities=empty,
                threshold=np.nan,
                beside=empty,
                elsewhere=empty,
                ends=ends.get((row["class"], row["cue"]), Ends()),
            )
            for row in records(table)
        ],
        classes=[
            ClassPage(label, audit.summary.classes[label], table.head(0), 0)
            for label in audit.classes
        ],
        baseline=baseline_query(audit),
        exact=exact_rows(audit),
        suspicious=suspicious_rows(audit),
        discovered=discovered_rows(audit),
        command=command,
    )
    return _pages(_with_images(audit, report, ends, pictures), each_page)


def read_pair(
    audit: Audit, overview: LivePages, number: int, pictures: Pictures, each_page: dict[str, Any]
) -> LivePages:
    """The same pages with the content of one pair's, by its number."""
    report = overview.report
    pair = str(report.pairs[number].row["class"]), str(report.pairs[number].row["cue"])
    ends = choice.find_ends(audit.results, audit.findings, {pair: _EACH})
    table = audit.rank()  # again, for the latest verdicts
    of_cue = table[table["cue"] == pair[1]]
    (row,) = records(of_cue[of_cue["class"] == pair[0]])
    names = Names(audit.results, audit.findings)
    page = pair_page(audit, names, of_cue, row, ends[pair])
    page = replace(page, edits=edit_pictures(audit, *pair, report.limits))
    pairs = [*report.pairs[:number], page, *report.pairs[number + 1 :]]
    return _pages(_with_images(audit, replace(report, pairs=pairs), ends, pictures), each_page)


def read_class(
    audit: Audit, overview: LivePages, number: int, pictures: Pictures, each_page: dict[str, Any]
) -> LivePages:
    """The same pages with the content of one class's, by its number."""
    report = overview.report
    shell = report.classes[number]
    table = audit.rank()
    cues = gallery_cues(table, audit.classes)[shell.label]
    wanted = {(shell.label, cue): _EACH for cue in cues}
    ends = choice.find_ends(audit.results, audit.findings, wanted)
    rows = table[table["class"] == shell.label]
    page = class_page(audit, shell.label, shell.images, rows, cues, ends)
    classes = [*report.classes[:number], page, *report.classes[number + 1 :]]
    return _pages(_with_images(audit, replace(report, classes=classes), ends, pictures), each_page)


def _with_images(
    audit: Audit, report: Report, ends: dict[choice.Pair, Ends], pictures: Pictures
) -> Report:
    shown = [image.image_id for end in ends.values() for image in end.high + end.low]
    rows = pictures.rows(shown)
    outlines = {name: pictures.outline(row) for name, row in zip(shown, rows, strict=True)}
    return replace(report, pictures=outlines, grids=end_grids(audit, ends, report.baseline))


def bare_report(results: Results) -> Report:
    """A report without an audit, for pages that show images only."""
    head = Overview(
        dataset=dataset_name(results),
        model="",
        images=len(results),
        failed={},
        unlabelled=0,
        copies=0,
        classes={},
        cues=(),
        decoys=(),
        measured=(),
        not_measured={},
        flagged={},
        check=DecoyCheck(0, 0, 0, 0, 0, 0.0, 0.0),
        caveats=(),
        meanings={},
    )
    return Report(head, {}, Limits(), results.grid, pd.DataFrame(), titles(results), [], [])


def _pages(report: Report, each_page: dict[str, Any]) -> LivePages:
    pages = LivePages(report)
    pages.env.globals |= each_page
    return pages
