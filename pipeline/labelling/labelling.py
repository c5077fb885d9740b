"""Write ``labels.csv`` and one page that opens from disk, and store the design with the run."""

import base64
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from pipeline.audit.label_design import COLUMNS, merge_labels
from pipeline.audit.label_groups import DESIGN, LABELS, Design, stored_design, write_design
from pipeline.auditor import Audit
from pipeline.errors import UsageError, counted
from pipeline.labelling.tasks import LabelTask, Pair, choose_pairs, draw_tasks
from pipeline.report.embed import to_json
from pipeline.report.shown_images import fetch_pictures
from pipeline.storage.location import local_path
from pipeline.storage.tables import read_table

PAGE = "label.html"
SIDE = 384
"""Longer side of a picture on the page, in pixels."""
KEY = ["image_id", "cue", "group"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page, table: files.
        pairs: (class, cue) that were drawn for.
        tasks: pictures to look at.
        answered: how many of them have an answer already.
        unreadable: pictures that could not be fetched from their source.
        design_beside: whether the design is beside the page, because the run's folder cannot be
            written to.
    """

    page: Path
    table: Path
    pairs: tuple[Pair, ...]
    tasks: int
    answered: int
    unreadable: int
    design_beside: bool


def write_labelling(
    audit: Audit,
    folder: str | Path,
    *,
    pairs: Sequence[Pair] = (),
    cues: Sequence[str] = (),
    labels: int = 50,
    answers: Sequence[str] = (),
    command: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Written:
    """Draw images and write the table and the page.

    Args:
        audit: the audit of the run.
        folder: local folder for both files; answers of a ``labels.csv`` that is there are kept.
        pairs: (class, cue) to label.
        cues: cues to label in their most striking classes. Without pairs and cues, the flagged and
            the most suspicious pairs that nobody has verified are chosen.
        labels: images of each class, and of each cue elsewhere.
        answers: further files of answers, to continue with them.
        command: words of the command that audits the same outputs, for the page; default
            ``legrad audit`` and the first output.
        tell: called with a message about each step.

    Raises:
        UsageError: there is no such class or cue, or a file cannot be read or written.
    """
    out = local_path(folder)
    table = out / LABELS
    uris = [*([str(table)] if table.exists() else []), *answers]
    before = earlier_answers(uris)
    chosen = choose_pairs(audit, pairs, cues)
    design = stored_design(audit.results.folder.root, [str(table), *uris], audit.settings.seed)
    tell(f"drawing images for {counted(len(chosen), 'pair')}")
    tasks, design = draw_tasks(audit, chosen, labels, design)
    out.mkdir(parents=True, exist_ok=True)
    beside = store_design(audit, design, out)
    rows = table_rows(tasks, before)
    rows.to_csv(table, index=False)
    ids = list(dict.fromkeys(task.image_id for task in tasks))
    tell(f"fetching {counted(len(ids), 'image')}")
    copies = fetch_pictures(audit.results, ids, SIDE)
    values = page_values(audit, tasks, rows)
    words = command or ["legrad", "audit", audit.results.folder.uri]
    values["next"] = f"mv ~/Downloads/{LABELS} {shlex.quote(str(table))}\n" + shlex.join(
        [*words, "--labels", str(table)]
    )
    values["pictures"] = [_data_uri(copies[name].data) if name in copies else None for name in ids]
    values["why"] = [
        copies[name].why if name in copies else "not among the results" for name in ids
    ]
    (out / PAGE).write_text(_render(values), encoding="utf-8")
    drawn = {(task.image_id, task.cue) for task in tasks}
    answered = rows[rows["answer"] != ""][["image_id", "cue"]].drop_duplicates()
    return Written(
        page=out / PAGE,
        table=table,
        pairs=tuple(chosen),
        tasks=len(tasks),
        answered=sum(pair in drawn for pair in answered.itertuples(index=False, name=None)),
        unreadable=sum(picture is None for picture in values["pictures"]),
        design_beside=beside,
    )


def _data_uri(data: bytes | None) -> str | None:
    return None if data is None else f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _render(values: dict[str, Any]) -> str:
    """The page, with styles and scripts inside it."""
    own, report = files("pipeline.labelling") / "page", files("pipeline.report") / "static"
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.labelling", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    texts = {
        "styles": (report / "report.css").read_text("utf-8")
        + (own / "label.css").read_text("utf-8"),
        "theme": (report / "theme.js").read_text("utf-8"),
        "script": (own / "label.js").read_text("utf-8"),
        "data": to_json(values),
    }
    safe = {name: Markup(text) for name, text in texts.items()}  # noqa: S704 - ours, or escaped
    return env.get_template("label.html").render(safe, live=False)


def earlier_answers(uris: Sequence[str]) -> pd.DataFrame:
    """Rows with an answer as text; of several answers of a person on an image the latest.

    Answers without a name are those of their file, as in an audit.
    """
    frames = []
    for uri in uris:
        frame = read_table(uri, COLUMNS)
        frame["who"] = frame["who"].where(frame["who"].str.strip() != "", uri.rsplit("/", 1)[-1])
        frames.append(frame)
    try:
        rows = merge_labels(frames)
    except UsageError as error:
        raise UsageError(f"{', '.join(uris)}: {error}") from error
    chance = rows["probability"].map(lambda value: "" if pd.isna(value) else f"{value:.9g}")
    return rows.assign(probability=chance.astype(object))


def store_design(audit: Audit, design: Design, out: Path) -> bool:
    """Store the design with the run; return whether it had to be stored beside the page."""
    try:
        write_design(audit.results.folder.root, design)
    except UsageError:
        (out / DESIGN).write_bytes(design.to_json())
        return True
    return False


def table_rows(tasks: Sequence[LabelTask], before: pd.DataFrame) -> pd.DataFrame:
    """Content of the table: all that is drawn now, with the latest answers, then earlier rows.

    Of several people's answers on an image, the others' stay as rows of their own.
    """
    drawn = [row for task in tasks for row in task.rows]
    rows = pd.DataFrame(drawn, columns=list(COLUMNS[:5]), dtype=object)
    latest = before.sort_values("when", kind="stable")
    said = latest.drop_duplicates(["image_id", "cue"], keep="last")
    answers = said[["image_id", "cue", "answer", "who", "when"]]
    rows = rows.merge(answers, on=["image_id", "cue"], how="left").fillna("")
    shown = rows[[*KEY, "who"]]
    kept = before.merge(shown, on=[*KEY, "who"], how="left", indicator="place")
    kept = kept[kept["place"] == "left_only"]
    return pd.concat([rows, kept[list(COLUMNS)]], ignore_index=True)


def page_values(audit: Audit, tasks: Sequence[LabelTask], rows: pd.DataFrame) -> dict[str, Any]:
    """What the script of the page reads, without pictures; ``rows`` are those of `table_rows`."""
    titles = {
        query.name: query.prompts[0] if len(query.prompts) == 1 else query.name.replace("_", " ")
        for query in audit.results.queries
    }
    picture: dict[str, int] = {}
    for task in tasks:
        picture.setdefault(task.image_id, len(picture))
    others = rows.iloc[sum(len(task.rows) for task in tasks) :]
    said = rows[rows["answer"] != ""].drop_duplicates(["image_id", "cue"])
    texts = said[["image_id", "cue", "answer", "who", "when"]].to_numpy().tolist()
    return {
        "run": str(audit.results.run.get("digest", audit.results.folder.uri)),
        "columns": list(COLUMNS),
        "cues": {cue: titles[cue] for cue in dict.fromkeys(task.cue for task in tasks)},
        "tasks": [
            {
                "id": task.image_id,
                "cue": task.cue,
                "picture": picture[task.image_id],
                "groups": [row[2:] for row in task.rows],
            }
            for task in tasks
        ],
        "answers": texts,
        "others": others.to_numpy().tolist(),
    }
