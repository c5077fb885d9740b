"""What the audit says of photographs with planted cues, beside the truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.discover import names_cue
from benchmarks.photographs_model import SIDE
from benchmarks.photographs_sets import Mask, Planting, data_file, run, truth, write_settings
from benchmarks.photographs_world import Photographs
from pipeline import Audit, open_results
from pipeline.audit.label_design import COLUMNS, Answer
from pipeline.audit.label_groups import DESIGN, Design
from pipeline.audit.suspicion_scan import worth_a_look
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery import discover, with_heat, words
from pipeline.labelling.tasks import draw_tasks
from pipeline.schema import EMBEDDING, score_column

PAIR = ["class", "cue"]


@dataclass(frozen=True)
class Case:
    """A data set, its run, and the truth.

    Attributes:
        planting: what is in the data.
        out: output folder of the run.
        shown: label, scores and ``has_<cue>`` of all photographs, by image_id.
        pairs: one row per class and cue: ``planted`` (share; NaN where it is not), ``decoy``, and
            the columns of `truth`.
    """

    planting: Planting
    out: str
    shown: pd.DataFrame
    pairs: pd.DataFrame

    @classmethod
    def read(cls, planting: Planting, out: Path) -> "Case":
        """Read a finished run."""
        cues = (*planting.cues, *planting.decoys)
        results = Audit.from_results(str(out)).results
        columns = [
            "image_id",
            "key",
            "label",
            *(f"has_{c}" for c in cues),
            *map(score_column, cues),
        ]
        shown = results.dataset.to_table(columns=columns).to_pandas().set_index("image_id")
        pairs = truth(shown, cues)
        planted = {(host, cue): share for cue, (host, share) in planting.planted.items()}
        keys = list(pairs[PAIR].itertuples(index=False, name=None))
        pairs["planted"] = [planted.get(key, np.nan) for key in keys]
        pairs["decoy"] = pairs["cue"].isin(planting.decoys)
        return cls(planting, str(out), shown, pairs)

    def joined(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of an audit, with the truth."""
        return table.drop(columns="decoy", errors="ignore").merge(self.pairs, on=PAIR)


def presence(case: Case) -> pd.DataFrame:
    """One row per cue: presence AUC over all photographs and within classes, and d' within."""
    rows = []
    for cue in case.planting.cues:
        has = case.shown[f"has_{cue}"].astype(bool)
        scores = case.shown[score_column(cue)].astype(float)
        within = (
            scores
            - scores[~has]
            .groupby(case.shown["label"])
            .mean()
            .reindex(case.shown["label"])
            .to_numpy()
        )
        spread = np.sqrt((within[has].var() + within[~has].var()) / 2)
        distance = (within[has].mean() - within[~has].mean()) / spread
        auc, inside = roc_auc_score(has, scores), roc_auc_score(has, within)
        rows.append((case.planting.seed, cue, auc, inside, distance))
    return pd.DataFrame(rows, columns=["seed", "cue", "auc", "auc within", "d'"])


def without_labels(case: Case) -> pd.DataFrame:
    """All pairs of an audit without labels; ``worth`` where it says that one is worth a look."""
    audit = Audit.from_results(case.out)
    table = audit.rank(decoys=True)
    looked = worth_a_look(table)[PAIR].assign(worth=True)
    table = table.merge(looked, on=PAIR, how="left")
    table["worth"] = table["worth"].notna()
    return case.joined(table).assign(seed=case.planting.seed)


def discovered(
    planting: Planting, photographs: Photographs, model: Path, cache: Path
) -> pd.DataFrame:
    """What a discovery finds in the photographs of a seed by a run that has class queries only.

    Returns:
        The candidates, with ``planted`` (the cue that is planted in the class, or empty), ``named``
        (whether a candidate with a word has its name), and ``auc`` (how well the candidate's
        direction tells photographs of the class with that cue from those without; NaN without one).
    """
    count = len(photographs.labels)
    file, out = data_file(cache, planting.seed, count), cache / f"found-{count}-{planting.seed}"
    run(write_settings({"class": photographs.classes}, model, file, out))
    results = open_results(str(out))
    settings = AuditConfig()
    found = with_heat(results, settings, discover(results, settings, words()), print)
    about = results.images(["label", EMBEDDING, *(f"has_{cue}" for cue in planting.cues)])
    vectors = np.stack(about[EMBEDDING].to_list())
    cue_of = {host: cue for cue, (host, _) in planting.planted.items()}
    rows = found.candidates.assign(seed=planting.seed)
    rows["planted"] = rows["class"].map(cue_of).fillna("")
    rows["named"], rows["auc"] = False, np.nan
    candidates = rows[["planted", "class", "kind", "word", "also"]].astype(str)
    for row, (cue, cls, kind, word, also) in candidates[candidates["planted"] != ""].iterrows():
        rows.loc[row, "named"] = names_cue(kind, f"{word}, {also}", cue)
        inside = (about["label"] == cls).to_numpy()
        has = about[f"has_{cue}"].to_numpy(bool)[inside]
        if word in found.directions:
            rows.loc[row, "auc"] = roc_auc_score(has, vectors[inside] @ found.directions[word])
    return rows


def with_labels(case: Case, labels: int, turn: int, folder: Path) -> pd.DataFrame:
    """All pairs of an audit in which every pair is labelled from the truth.

    Args:
        labels: photographs of each class, and outside of it, for each cue.
        turn: seed of the order in which they are drawn.
        folder: where the file of labels is written.
    """
    audit = Audit.from_results(case.out, settings={"suspicions": False, "maps": False})
    keys = list(case.pairs[PAIR].itertuples(index=False, name=None))
    tasks, design = draw_tasks(audit, keys, labels, Design(turn, {}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESIGN).write_bytes(design.to_json())
    rows = []
    for task in tasks:
        there = bool(case.shown.at[task.image_id, f"has_{task.cue}"])
        answer = str(Answer.PRESENT if there else Answer.ABSENT)
        for m in task.memberships:
            rows.append(
                (task.image_id, task.cue, m.group, m.stratum, m.probability, answer, "truth", "")
            )
    file = folder / "labels.csv"
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(file, index=False)
    settings = {"suspicions": False, "maps": False}
    judged = Audit.from_results(case.out, settings=settings, labels=[str(file)])
    table = case.joined(judged.rank(decoys=True))
    return table.assign(seed=case.planting.seed, labels=labels, turn=turn)


def heat(case: Case, ink: Mapping[str, Mapping[str, Mask]]) -> pd.DataFrame:
    """How well a cue's heat, which no loss concerned, finds its ink.

    Args:
        ink: cue -> image_id -> where it is, of photographs that have it.

    Returns:
        One row per cue: heat on the ink (1 is average), and share of the maps whose hottest pixel
        lies on it, and the share that chance would give.
    """
    audit, rows = Audit.from_results(case.out), []
    for cue, large in ink.items():
        masks = {name: _shrunk(mask) for name, mask in large.items()}
        names = list(masks)
        on_ink = float(audit.heat_on(cue, masks).mean())
        maps = audit.results.maps(cue, names, size=SIDE)[1]
        hottest = maps.reshape(len(names), -1).argmax(axis=1)
        stacked = np.stack([masks[name].ravel() for name in names])
        hit = float(stacked[np.arange(len(names)), hottest].mean())
        rows.append((case.planting.seed, cue, on_ink, hit, float(stacked.mean())))
    return pd.DataFrame(rows, columns=["seed", "cue", "heat on ink", "pointing", "chance"])


def _shrunk(mask: Mask) -> Mask:
    """As the model sees the picture, bool (`SIDE`, `SIDE`)."""
    small = Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return np.asarray(small, dtype=np.bool_)
