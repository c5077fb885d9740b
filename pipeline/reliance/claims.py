"""From edits to claims: was the cue really gone, what did it change, and does that count?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm

from pipeline.audit.findings import Findings
from pipeline.audit.inference import Array
from pipeline.config.audit_settings import AuditConfig, Gates
from pipeline.reliance import margin
from pipeline.reliance.edited import Deletion, Edited, Vectors
from pipeline.reliance.effects import Contrast, shares
from pipeline.reliance.fills import FILLS
from pipeline.reliance.probe_statistics import ProbeSums
from pipeline.reliance.reasons import clip_reason, probe_reason, untestable

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
"""Columns of each claim beside effect, low, high, q, flag and reason."""


@dataclass(frozen=True)
class Directions:
    """What the claims are measured along.

    Attributes:
        cues: cue -> (E,) its text.
        classes: label -> (E,) its text, for the classes that have one.
        controls: (label, cue) -> (E,): class with cue minus class, in words.
    """

    cues: Mapping[str, Vectors]
    classes: Mapping[str, Vectors]
    controls: Mapping[tuple[str, str], Vectors]


@dataclass(frozen=True)
class Pair:
    """A pair whose images were edited.

    Attributes:
        cls, cue, rival: names.
        edited: what came out.
    """

    cls: str
    cue: str
    rival: str
    edited: Edited


class Claims:
    """Both claims for some pairs.

    Args:
        found: claim A, with the presence of every cue.
        sums: of the embeddings.
        judged: see `judged.judge`.
        directions: of texts.
        settings: gates, ridge, resamples.
    """

    def __init__(
        self,
        found: Findings,
        sums: ProbeSums,
        judged: pd.DataFrame,
        directions: Directions,
        settings: AuditConfig,
    ) -> None:
        self.found = found
        self.sums = sums
        self.judged: dict[str, dict[str, Any]] = {
            str(row["class"]): {str(name): value for name, value in row.items()}
            for row in judged.to_dict(orient="records")
        }
        self.directions = directions
        self.settings = settings
        self.gates: Gates = settings.gates

    def frame(self, pairs: Sequence[Pair]) -> pd.DataFrame:
        """A row a pair: class, cue, and the columns of both claims."""
        columns = [f"{c}__{f}" for c in (CLIP, PROBE) for f in (*_FIELDS, *MORE[c])]
        if not pairs:
            return pd.DataFrame(columns=["class", "cue", *columns])
        probe = self._probe(pairs)
        rows = [
            {"class": pair.cls, "cue": pair.cue} | self.clip(pair) | own
            for pair, own in zip(pairs, probe, strict=True)
        ]
        frame = pd.DataFrame(rows).reindex(columns=["class", "cue", *columns])
        for claim in (CLIP, PROBE):
            frame[f"{claim}__q"] = _adjusted(frame[f"{claim}__q"].to_numpy(float))
        return frame

    def threshold(self, cls: str, cue: str) -> float:
        """Score from which the cue counts as there in images of a class."""
        presence = self.found.presence
        place = presence.histograms.cues.index(cue)
        return float(presence.threshold[place, self.found.population.index[cls]])

    def gone(self, pair: Pair, deletion: Deletion) -> NDArray[np.bool_]:
        """(n,) whether the cue's score fell below its threshold, with every fill."""
        scores = deletion.without @ self.directions.cues[pair.cue]
        below = scores < self.threshold(pair.cls, pair.cue)
        return np.asarray(below.all(axis=0), dtype=bool)

    def came(self, pair: Pair) -> NDArray[np.bool_]:
        """(n,) whether the cue's score rose above the rival's threshold by insertion."""
        scores = pair.edited.inserted.inserted @ self.directions.cues[pair.cue]
        result: NDArray[np.bool_] = scores >= self.threshold(pair.rival, pair.cue)
        return result

    def clip(self, pair: Pair) -> dict[str, object]:
        """Claim B for one pair, by column; its q is not adjusted yet."""
        gone = self.gone(pair, pair.edited.spared)
        kept = pair.edited.spared.take(gone)
        row: dict[str, object] = {"images": len(kept.ids), "removed": _share(gone)}
        reason = untestable(pair.edited, pair.edited.spared, gone, self.gates)
        if not reason and pair.cls not in self.directions.classes:
            reason = "the class has no query of its own, so no text to test"
        if reason:
            return _named(CLIP, row | {"flag": False, "reason": f"not testable: {reason}"})
        names = list(self.directions.classes)
        texts = np.stack([self.directions.classes[name] for name in names])
        change = margin.of_margin(kept, texts, names.index(pair.cls))
        control = self.directions.controls.get((pair.cls, pair.cue))
        proof = None if control is None else margin.of_direction(kept, control)
        reason = clip_reason(change, proof, self.gates)
        row |= {"effect": change.effect, "low": change.low, "high": change.high, "q": change.p}
        row |= {"control": np.nan if proof is None else proof.effect}
        return _named(CLIP, row | {"flag": not reason, "reason": reason})

    def _probe(self, pairs: Sequence[Pair]) -> list[dict[str, object]]:
        kept = [pair.edited.deleted.take(self.gone(pair, pair.edited.deleted)) for pair in pairs]
        came = [self.came(pair) for pair in pairs]
        main = [
            self._contrast(p, k.ids, k.change.mean(axis=0))
            for p, k in zip(pairs, kept, strict=True)
        ]
        inserted = [self._inserted(p, rows) for p, rows in zip(pairs, came, strict=True)]
        joint = [self._joint(pair) for pair in pairs]
        config = self.settings.reliance
        drawn = shares(
            self.sums,
            [*main, *inserted, *joint],
            config.ridge,
            config.resamples,
            self.settings.seed,
        )
        by_fill = self._by_fill(pairs, kept)
        low, high = drawn.bounds()
        p = norm.sf(drawn.effect / np.maximum(drawn.errors(), 1e-12))
        rows, count = [], len(pairs)
        for n, pair in enumerate(pairs):
            at, gone = count + n, self.gone(pair, pair.edited.deleted)
            values = self._about(pair, gone, came[n])
            if came[n].sum() >= self.gates.edits:
                values |= {"insertion": drawn.effect[at]}
                values |= {"insertion_low": low[at], "insertion_high": high[at]}
            if len(joint[n].ids) >= self.gates.edits:
                values["joint"] = drawn.effect[2 * count + n]
            reason = untestable(pair.edited, pair.edited.deleted, gone, self.gates)
            if reason:
                reason = f"not testable: {reason}"
            else:
                values |= {"effect": drawn.effect[n], "low": low[n], "high": high[n], "q": p[n]}
                against = bool(values.get("insertion_high", 1.0) < 0)
                seen = self.judged[pair.cls]
                reason = probe_reason(
                    seen, (low[n], high[n]), by_fill[n], self.gates, against=against
                )
            rows.append(_named(PROBE, values | {"flag": not reason, "reason": reason}))
        return rows

    def _about(
        self, pair: Pair, gone: NDArray[np.bool_], came: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """What was tested, on how many images."""
        seen = self.judged[pair.cls]
        return {
            "images": int(gone.sum()),
            "removed": _share(gone),
            "rival": pair.rival,
            "auc": seen["auc"],
            "auc_low": seen["auc_low"],
            "insertion_images": int(came.sum()),
            "joint_with": next(iter(pair.edited.joint), ""),
        }

    def _contrast(
        self, pair: Pair, ids: Sequence[str], change: Vectors, *, by_share: bool = True
    ) -> Contrast:
        index = self.found.population.index
        cue = self.sums.cues.index(pair.cue)
        return Contrast(index[pair.cls], index[pair.rival], cue, ids, change, by_share)

    def _inserted(self, pair: Pair, came: NDArray[np.bool_]) -> Contrast:
        found = pair.edited.inserted
        ids = [name for name, kept in zip(found.ids, came, strict=True) if kept]
        return self._contrast(pair, ids, (found.inserted - found.control)[came], by_share=False)

    def _joint(self, pair: Pair) -> Contrast:
        for deletion in pair.edited.joint.values():
            kept = deletion.take(self.gone(pair, deletion))
            return self._contrast(pair, kept.ids, kept.change.mean(axis=0), by_share=False)
        return self._contrast(pair, [], np.zeros((0, self.sums.width), np.float32), by_share=False)

    def _by_fill(self, pairs: Sequence[Pair], kept: Sequence[Deletion]) -> Array:
        """(P, F) effect of each fill alone."""
        contrasts = [
            self._contrast(pair, one.ids, change, by_share=False)
            for pair, one in zip(pairs, kept, strict=True)
            for change in one.change
        ]
        alone = shares(self.sums, contrasts, self.settings.reliance.ridge, 0, 0)
        return alone.effect.reshape(len(pairs), len(FILLS))


_FIELDS = ("effect", "low", "high", "q", "flag", "reason")


def _named(claim: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{claim}__{name}": value for name, value in values.items()}


def _share(rows: NDArray[np.bool_]) -> float:
    return float(rows.mean()) if len(rows) else float("nan")


def _adjusted(p: Array) -> Array:
    """Benjamini and Hochberg over what was tested."""
    q = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q
