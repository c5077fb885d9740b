"""The table of answers, the stored design, and what the page on which people label needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.audit.label_design import COLUMNS, Answer
from pipeline.audit.label_groups import DESIGN, LABELS, Design, write_design
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.labelling.tasks import LabelTask
from pipeline.storage.tables import read_table

TABLE = LABELS
KEY = ["image_id", "cue", "group"]


def earlier_answers(uris: Sequence[str]) -> pd.DataFrame:
    """Rows with an answer; of several answers on an image the latest."""
    frames = [read_table(uri, COLUMNS) for uri in uris]
    rows = pd.concat([pd.DataFrame(columns=list(COLUMNS), dtype=object), *frames])
    rows = rows[rows["answer"].str.strip() != ""].sort_values("when", kind="stable")
    strange = sorted(set(rows["answer"]) - set(Answer))
    if strange:
        raise UsageError(
            f"{', '.join(uris)}: answer {strange[0]!r}; expected {', '.join(Answer)}, or nothing"
        )
    return rows.drop_duplicates(KEY, keep="last")


def store_design(audit: Audit, design: Design, out: Path) -> bool:
    """Store the design with the run; return whether it had to be stored beside the page."""
    try:
        write_design(audit.results.folder.root, design)
    except UsageError:
        (out / DESIGN).write_bytes(design.to_json())
        return True
    return False


def table_rows(tasks: Sequence[LabelTask], before: pd.DataFrame) -> pd.DataFrame:
    """Content of the table: all that is drawn now, with earlier answers, then earlier rows."""
    drawn = [row for task in tasks for row in task.rows]
    rows = pd.DataFrame(drawn, columns=list(COLUMNS[:5]), dtype=object)
    said = before.drop_duplicates(["image_id", "cue"], keep="last")
    answers = said[["image_id", "cue", "answer", "who", "when"]]
    rows = rows.merge(answers, on=["image_id", "cue"], how="left").fillna("")
    kept = before.merge(rows[KEY], on=KEY, how="left", indicator="place")
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
    drawn = {(task.image_id, task.cue) for task in tasks}
    pairs = rows[["image_id", "cue"]].itertuples(index=False, name=None)
    others = rows[[pair not in drawn for pair in pairs]]
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
