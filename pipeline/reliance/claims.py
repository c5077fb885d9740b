"""Claims from edits: whether the cue was really removed, what that changed, and the flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.audit.basis import Basis
from pipeline.audit.findings import Findings
from pipeline.audit.inference import Z95, Array, adjusted
from pipeline.audit.ranking import FIELDS
from pipeline.config.audit_settings import AuditConfig, Gates
from pipeline.reliance.edits import Deletion, PairEdits, Vectors
from pipeline.reliance.effects import Contrast, direction_change, evidence_shares, margin_change
from pipeline.reliance.probe import ProbeSums
from pipeline.reliance.reasons import clip_reason, probe_reason, untestable
from pipeline.reliance.regions import FILLS

CLIP, PROBE = "clip_reliance", "probe_reliance"
MORE: dict[str, tuple[str, ...]] = {
    CLIP: ("images", "removed", "control"),
    PROBE: (
        "images",
        "removed",
        "rival",
        "auc",
        "auc_low",
        "insertion",
        "insertion_low",
        "insertion_high",
        "insertion_images",
        "joint",
        "joint_with",
    ),
}
"""Columns of each claim besides `FIELDS`."""


@dataclass(frozen=True)
class TextDirections:
    """Directions of texts in the embedding space.

    Attributes:
        cues: cue -> (E,) direction of its text.
        classes: label -> (E,) direction of its text, for classes with a query.
        controls: (label, cue) -> (E,) "class with cue" minus "class", the positive control.
    """

    cues: Mapping[str, Vectors]
    classes: Mapping[str, Vectors]
    controls: Mapping[tuple[str, str], Vectors]


@dataclass(frozen=True)
class EditedPair:
    """A pair whose images were edited.

    Attributes:
        cls, cue, rival: names.
        edits: embeddings of the edited images.
        other_labels: image_id -> its labels besides the class, where it has some.
    """

    cls: str
    cue: str
    rival: str
    edits: PairEdits
    other_labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Claims:
    """The two claims of reliance for some pairs.

    Args:
        findings: the association claim, with the presence of every cue.
        sums: sums of the embeddings, to which the probe is fitted.
        quality: see `probe_quality`.
        directions: directions of the texts.
        settings: gates, ridge, and number of resamples.
    """

    def __init__(
        self,
        findings: Findings,
        sums: ProbeSums,
        quality: pd.DataFrame,
        directions: TextDirections,
        settings: AuditConfig,
    ) -> None:
        self.findings = findings
        self.sums = sums
        self.quality: dict[str, dict[str, Any]] = {
            str(row["class"]): {str(name): value for name, value in row.items()}
            for row in quality.to_dict(orient="records")
        }
        self.directions = directions
        self.settings = settings
        self.gates: Gates = settings.gates

    def frame(self, pairs: Sequence[EditedPair]) -> pd.DataFrame:
        """One row per pair: class, cue, and the columns of both claims."""
        columns = [f"{c}__{f}" for c in (CLIP, PROBE) for f in (*FIELDS, *MORE[c])]
        if not pairs:
            return pd.DataFrame(columns=["class", "cue", *columns])
        probe = self._probe(pairs)
        rows = [
            {"class": pair.cls, "cue": pair.cue} | self.clip(pair) | row
            for pair, row in zip(pairs, probe, strict=True)
        ]
        frame = pd.DataFrame(rows).reindex(columns=["class", "cue", *columns])
        for claim in (CLIP, PROBE):
            frame[f"{claim}__q"] = adjusted(frame[f"{claim}__q"].to_numpy(float))
        return frame

    def threshold(self, cls: str, cue: str) -> float:
        """Score from which the cue counts as present in images of a class."""
        presence = self.findings.presence
        index = presence.histograms.cues.index(cue)
        return float(presence.threshold[index, self.findings.population.index[cls]])

    def removed(self, pair: EditedPair, deletion: Deletion) -> NDArray[np.bool_]:
        """(n,) whether the cue's score fell below its threshold with every fill."""
        direction, threshold = self.directions.cues[pair.cue], self.threshold(pair.cls, pair.cue)
        above = deletion.before @ direction >= threshold
        below = (deletion.without @ direction < threshold).all(axis=0)
        return np.asarray(above & below, dtype=bool)

    def appeared(self, pair: EditedPair) -> NDArray[np.bool_]:
        """(n,) whether insertion raised the cue's score to its threshold in the rival class."""
        scores = pair.edits.inserted.inserted @ self.directions.cues[pair.cue]
        result: NDArray[np.bool_] = scores >= self.threshold(pair.rival, pair.cue)
        return result

    def clip(self, pair: EditedPair) -> dict[str, object]:
        """Columns of ``clip_reliance`` for one pair; q is not adjusted yet."""
        removed = self.removed(pair, pair.edits.spared)
        kept = pair.edits.spared.take(removed)
        row: dict[str, object] = {"images": len(kept.ids), "removed": _share(removed)}
        reason = untestable(pair.edits, pair.edits.spared, removed, self.gates)
        if not reason and pair.cls not in self.directions.classes:
            reason = "the class has no query of its own, so no text to test"
        if reason:
            return _named(CLIP, row | {"flag": False, "reason": f"not testable: {reason}"})
        names = list(self.directions.classes)
        texts = np.stack([self.directions.classes[name] for name in names])
        labels = [pair.other_labels.get(image, ()) for image in kept.ids]
        also = np.array([[name in others for name in names] for others in labels], bool)
        also = also.reshape(len(labels), len(names))  # also without an image
        change = margin_change(kept, texts, names.index(pair.cls), also)
        direction = self.directions.controls.get((pair.cls, pair.cue))
        control = None if direction is None else direction_change(kept, direction)
        reason = clip_reason(change, control, self.gates)
        row |= {"effect": change.effect, "low": change.low, "high": change.high, "q": change.p}
        row |= {"control": np.nan if control is None else control.effect}
        return _named(CLIP, row | {"flag": not reason, "reason": reason})

    def _probe(self, pairs: Sequence[EditedPair]) -> list[dict[str, object]]:
        """Columns of ``probe_reliance`` for all pairs, which share the resamples."""
        kept = [pair.edits.deleted.take(self.removed(pair, pair.edits.deleted)) for pair in pairs]
        appeared = [self.appeared(pair) for pair in pairs]
        main = [
            self._contrast(pair, deletion.ids, deletion.change.mean(axis=0))
            for pair, deletion in zip(pairs, kept, strict=True)
        ]
        inserted = [self._inserted(p, rows) for p, rows in zip(pairs, appeared, strict=True)]
        joint = [self._joint(pair) for pair in pairs]
        config = self.settings.reliance
        shares = evidence_shares(
            self.sums,
            [*main, *inserted, *joint],
            config.ridge,
            config.resamples,
            self.settings.seed,
        )
        by_fill = self._by_fill(pairs, kept)
        low, high = shares.bounds()
        p = norm.sf(shares.effect / np.maximum(shares.errors(), 1e-12))
        rows, count = [], len(pairs)
        for n, pair in enumerate(pairs):
            at, removed = count + n, self.removed(pair, pair.edits.deleted)
            values = self._counts(pair, removed, appeared[n])
            if appeared[n].sum() >= self.gates.edits:
                values |= {"insertion": shares.effect[at]}
                values |= {"insertion_low": low[at], "insertion_high": high[at]}
            if len(joint[n].ids) >= self.gates.edits:
                values["joint"] = shares.effect[2 * count + n]
            reason = untestable(pair.edits, pair.edits.deleted, removed, self.gates)
            if reason:
                reason = f"not testable: {reason}"
            else:
                values |= {"effect": shares.effect[n], "low": low[n], "high": high[n], "q": p[n]}
                against = bool(values.get("insertion_high", 1.0) < 0)
                quality = self.quality[pair.cls]
                reason = probe_reason(
                    quality, (low[n], high[n]), by_fill[n], self.gates, against=against
                )
            rows.append(_named(PROBE, values | {"flag": not reason, "reason": reason}))
        return rows

    def _counts(
        self, pair: EditedPair, removed: NDArray[np.bool_], appeared: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Columns about the test: number of images, the rival, and the probe's AUC."""
        quality = self.quality[pair.cls]
        return {
            "images": int(removed.sum()),
            "removed": _share(removed),
            "rival": pair.rival,
            "auc": quality["auc"],
            "auc_low": quality["auc_low"],
            "insertion_images": int(appeared.sum()),
            "joint_with": next(iter(pair.edits.joint), ""),
        }

    def _contrast(
        self, pair: EditedPair, ids: Sequence[str], change: Vectors, *, by_share: bool = True
    ) -> Contrast:
        index = self.findings.population.index
        cue = self.sums.cues.index(pair.cue)
        gap = answered_gap(self.findings.frame, pair.cls, pair.cue) if by_share else None
        return Contrast(index[pair.cls], index[pair.rival], cue, ids, change, by_share, gap)

    def _inserted(self, pair: EditedPair, appeared: NDArray[np.bool_]) -> Contrast:
        insertion = pair.edits.inserted
        ids = [name for name, kept in zip(insertion.ids, appeared, strict=True) if kept]
        change = (insertion.inserted - insertion.control)[appeared]
        return self._contrast(pair, ids, change, by_share=False)

    def _joint(self, pair: EditedPair) -> Contrast:
        for deletion in pair.edits.joint.values():
            kept = deletion.take(self.removed(pair, deletion))
            return self._contrast(pair, kept.ids, kept.change.mean(axis=0), by_share=False)
        return self._contrast(pair, [], np.zeros((0, self.sums.width), np.float32), by_share=False)

    def _by_fill(self, pairs: Sequence[EditedPair], kept: Sequence[Deletion]) -> Array:
        """(P, F) effect of each fill alone."""
        contrasts = [
            self._contrast(pair, deletion.ids, change, by_share=False)
            for pair, deletion in zip(pairs, kept, strict=True)
            for change in deletion.change
        ]
        alone = evidence_shares(self.sums, contrasts, self.settings.reliance.ridge, 0, 0)
        return alone.effect.reshape(len(pairs), len(FILLS))


def answered_gap(frame: pd.DataFrame, cls: str, cue: str) -> tuple[float, float] | None:
    """Difference of a cue's shares in a class and in all others, and its standard error.

    None where the pair is not decided by people's answers.
    """
    row = frame[(frame["class"] == cls) & (frame["cue"] == cue)].iloc[0]
    if row["association__basis"] != Basis.LABELS:
        return None
    names = ("difference", "difference_low", "difference_high")
    gap, low, high = (float(row[f"association__{name}"]) for name in names)
    return gap, (high - low) / (2 * Z95)


def _named(claim: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{claim}__{name}": value for name, value in values.items()}


def _share(rows: NDArray[np.bool_]) -> float:
    return float(rows.mean()) if len(rows) else float("nan")
