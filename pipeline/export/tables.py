"""Tables with one row per image: images of flagged pairs, groups, and suspicion scores."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.audit.class_members import label_columns
from pipeline.audit.scores import batches
from pipeline.auditor import Audit
from pipeline.errors import UsageError

Pairs = Sequence[tuple[str, str]]


def flagged_pairs(audit: Audit) -> list[tuple[str, str]]:
    """(class, cue) flagged for association, strongest first.

    Pairs that only labels tell of are left out: which single images have the cue is not known.
    """
    presence = audit.findings.presence
    names = presence.histograms.cues
    measured = [name for name, good in zip(names, presence.measured, strict=True) if good]
    frame = audit.rank(flagged=True)
    frame = frame[frame["cue"].isin(measured)]
    return list(frame[["class", "cue"]].itertuples(index=False, name=None))


def flagged_images(audit: Audit, pairs: Pairs) -> pd.DataFrame:
    """The images of each pair's class that have the pair's cue.

    Returns:
        One row per (image, pair): ``image_id``, ``class``, ``cue``, ``score``, ``presence``
        (probability), ``shard``, ``key``.
    """
    columns = ["image_id", "class", "cue", "score", "presence", "shard", "key"]
    parts = [
        audit.images(cls, cue, present=True).reset_index().assign(**{"class": cls, "cue": cue})
        for cls, cue in pairs
    ]
    return pd.concat([pd.DataFrame(columns=columns), *parts])[columns].reset_index(drop=True)


def groups(audit: Audit, cues: Sequence[str]) -> pd.DataFrame:
    """The group of every explained, labelled image, as GroupDRO, DFR and similar methods need it.

    Args:
        audit: audit of the run.
        cues: cues whose presence divides the classes; each doubles the number of groups.

    Returns:
        ``image_id``, ``label``, ``has_<cue>`` (bool), ``group_name``, ``group`` (0, 1, ... in the
        order of classes, then of presence; the same data give the same numbers).

    Raises:
        UsageError: there is no cue, or one is unknown or its presence is not measured.
    """
    presence = audit.findings.presence
    names, measured = presence.histograms.cues, presence.measured
    usable = [name for name, good in zip(names, measured, strict=True) if good]
    unusable = [cue for cue in cues if cue not in usable]
    if unusable or not cues:
        name = repr(unusable[0]) if unusable else "none"
        raise UsageError(f"groups by cue: expected one of {', '.join(usable)}, found {name}")
    parts = []
    for batch in batches(audit.results, audit.findings.population, cues, ["image_id"]):
        part = {"image_id": batch.table["image_id"].to_pylist()}
        part |= {"label": batch.table["label"].to_pylist(), "code": batch.codes}
        for cue in cues:
            of_cue = presence.of(names.index(cue), batch.codes, batch.scores(cue))
            part[f"has_{cue}"] = of_cue > 0.5
        parts.append(pd.DataFrame(part))
    frame = pd.concat(parts, ignore_index=True)
    if audit.findings.population.has_sets:  # every set of labels is a class of its own
        frame["label"] = frame["label"].fillna("")
        frame["code"] = pd.factorize(frame["label"], sort=True)[0]
    return _numbered(frame, cues)


def _numbered(frame: pd.DataFrame, cues: Sequence[str]) -> pd.DataFrame:
    bits = np.zeros(len(frame), dtype=np.int64)
    for number, cue in enumerate(cues):
        bits += frame[f"has_{cue}"].to_numpy(np.int64) << number
    frame["group"] = frame["code"].to_numpy(np.int64) * 2 ** len(cues) + bits
    group_names = frame["label"].astype(str)
    for cue in cues:
        group_names += np.where(frame[f"has_{cue}"], f", {cue}", f", no {cue}")
    frame["group_name"] = group_names
    order = ["image_id", "label", *(f"has_{cue}" for cue in cues), "group_name", "group"]
    return frame.drop(columns="code")[order]


def issues(audit: Audit, pairs: Pairs) -> pd.DataFrame:
    """One row per image in the form of cleanlab's Datalab, in which a low score is bad.

    Returns:
        ``image_id``, ``is_spurious_issue``, ``spurious_score`` (1 minus the probability that the
        image has a cue that is flagged for its class; 1 where there is none), ``spurious_cue``.
    """
    names = [*label_columns(audit.results), "status"]
    images = audit.results.images(names)
    labelled = images[(images["status"] == "ok") & images[names[:-1]].notna().any(axis=1)]
    flagged = flagged_images(audit, pairs).sort_values("presence", ascending=False)
    worst = flagged.drop_duplicates("image_id").set_index("image_id").reindex(labelled.index)
    score = (1 - worst["presence"].astype(float)).fillna(1.0)
    return pd.DataFrame(
        {
            "is_spurious_issue": score < 0.5,
            "spurious_score": score,
            "spurious_cue": worst["cue"].fillna(""),
        },
        index=labelled.index,
    ).reset_index()
