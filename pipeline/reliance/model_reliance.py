"""``model_reliance`` for the pairs of an audit: a classifier's run beside the audited run."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.basis import Basis
from pipeline.audit.class_members import rows_with_label
from pipeline.audit.inference import Array, adjusted
from pipeline.audit.predictions import accuracy_by_cue
from pipeline.audit.ranking import FIELDS
from pipeline.cluster.resources import Resources
from pipeline.config import ClassifierConfig, queries_by_label
from pipeline.errors import UsageError
from pipeline.reliance.claims import EditedPair
from pipeline.reliance.classifier_edits import HEAT, ClassifierJob, ClassifierStage
from pipeline.reliance.edit_run import run_edits
from pipeline.reliance.edits import Kind, PairEdits, read_edits
from pipeline.reliance.model_claim import (
    MODEL,
    MORE,
    Shares,
    aligned,
    chance,
    columns,
    flips,
    logit_share,
    reason,
    taken,
)
from pipeline.reliance.reasons import untestable
from pipeline.reliance.reliance import Reliance
from pipeline.results.reproduce import model_config
from pipeline.results.results import Results
from pipeline.schema import PREDICTED_LABEL
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings

_BATCH = 32


@dataclass(frozen=True)
class ModelReliance:
    """The claim ``model_reliance`` for the pairs that an audit tests.

    Attributes:
        reliance: edits, verification and settings of the audited run.
        classifier: results of the run of the classifier, over the same images.
        config: settings of the classifier.
    """

    reliance: Reliance
    classifier: Results
    config: ClassifierConfig

    @classmethod
    def of(cls, reliance: Reliance, classifier: Results) -> "ModelReliance":
        """The claim for the run of a classifier.

        Raises:
            UsageError: the run is not of a classifier.
        """
        config = model_config(classifier.run)
        if not isinstance(config, ClassifierConfig):
            raise UsageError(
                f"{classifier.folder.uri}: expected a run whose model has `kind: classifier`, "
                f"found one of {config.name}"
            )
        return cls(reliance, classifier, config)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classifier's classes, in the order of its logits."""
        return tuple(self.classifier.run["metadata"]["model"]["classes"])

    @cached_property
    def tables(self) -> dict[tuple[str, str], pa.Table]:
        """(class, cue) -> logits of the edits; those that are not stored yet are computed.

        Raises:
            UsageError: the classifier cannot be loaded, or has other weights than in its run.
            RunError: editing failed; the same command continues it.
        """
        reliance = self.reliance
        self._known_images()
        reliance.pairs  # noqa: B018 - the edits that the classifier is to see
        job = self._job(ReplicaSettings(self.config, "cpu", 1, _BATCH))
        stored = set(reliance.folder.root.files("logits-*.parquet"))
        missing = {n: task for n, task in reliance.tasks.items() if job.file(n) not in stored}
        if missing:
            run_edits(missing, self._prepare, reliance.folder, reliance.tell, ClassifierStage)
        return {
            (task.cls, task.cue): read_edits(reliance.folder.root.child(job.file(name)))
            for name, task in reliance.tasks.items()
        }

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per tested pair: class, cue, and the columns of the claim."""
        names = [f"{MODEL}__{field}" for field in (*FIELDS, *MORE)]
        pairs = list(self.reliance.pairs.values())
        rows = [
            {"class": pair.cls, "cue": pair.cue}
            | {f"{MODEL}__{name}": value for name, value in self._row(pair).items()}
            for pair in pairs
        ]
        frame = pd.DataFrame(rows).reindex(columns=["class", "cue", *names])
        frame[f"{MODEL}__q"] = adjusted(frame[f"{MODEL}__q"].to_numpy(float))
        return frame

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """Accuracy of the classifier with and without each cue, see `accuracy_by_cue`."""
        predicted = self.classifier.images([PREDICTED_LABEL])[PREDICTED_LABEL].dropna()
        findings = self.reliance.findings
        return accuracy_by_cue(
            self.reliance.results, findings.population, findings.presence, predicted
        )

    def _row(self, pair: EditedPair) -> dict[str, object]:
        """Columns of the claim for one pair; q is not adjusted yet."""
        claims, gates = self.reliance.claims, self.reliance.settings.gates
        removed = claims.removed(pair, pair.edits.deleted)
        row: dict[str, object] = {"flag": False, "rival": pair.rival, "images": int(removed.sum())}
        row["removed"] = float(removed.mean()) if len(removed) else np.nan
        fault = untestable(pair.edits, pair.edits.deleted, removed, gates)
        absent = [name for name in (pair.cls, pair.rival) if name not in self.classes]
        if absent:
            fault = f"the classifier has no class {absent[0]!r}"
        if fault:
            return row | {"reason": f"not testable: {fault}"}
        cls, rival = (self.classes.index(name) for name in (pair.cls, pair.rival))
        table = self.tables[pair.cls, pair.cue]
        edits = PairEdits.of(table.drop_columns([HEAT]))
        kept = aligned(edits.deleted.ids, dict(zip(pair.edits.deleted.ids, removed, strict=True)))
        deletion, shares = edits.deleted.take(kept), self._shares(pair)
        inserted = dict(zip(pair.edits.inserted.ids, claims.appeared(pair), strict=True))
        insertion = edits.inserted
        share, decisions = logit_share(deletion, cls, rival, shares), flips(deletion, cls)
        row |= {"effect": share.effect, "low": share.low, "high": share.high, "q": chance(share)}
        row |= {"auc": shares.auc[0], "auc_low": shares.auc[1], "heat": _heat(table)}
        row |= columns(decisions, "flips")
        row |= columns(taken(insertion, aligned(insertion.ids, inserted), cls), "taken")
        why = reason(share, decisions, shares.auc, gates)
        return row | self._accuracies(pair) | {"flag": not why, "reason": why}

    def _shares(self, pair: EditedPair) -> Shares:
        """How often class and rival have the cue, and how well the classifier separates them."""
        frame = self.reliance.findings.frame
        own, rival = (self._of(frame, name, pair.cue) for name in (pair.cls, pair.rival))
        in_class, in_rival = float(own["share"]), float(rival["share"])
        images, rival_images = int(own["images"]), int(rival["images"])
        if own["association__basis"] == Basis.LABELS:  # they tell the share of all other classes
            in_rival = float(own["share_elsewhere"])
            images, rival_images = int(own["labels"]), int(own["labels_elsewhere"])
        margins, rival_margins = self._margins(pair)
        return Shares(in_class, in_rival, images, rival_images, margins, rival_margins)

    def _margins(self, pair: EditedPair) -> tuple[Array, Array]:
        """Logit of the class minus that of the rival, for images of the class and of the rival.

        Images with both labels are left out.
        """
        queries = queries_by_label(self.classifier.queries)
        cls, rival = queries[pair.cls], queries[pair.rival]
        logits = self.classifier.scores([cls, rival]).dropna()
        margins = logits[cls] - logits[rival]
        mine, theirs = self._images(pair.cls), self._images(pair.rival)
        of_class, of_rival = (
            margins[margins.index.isin(only)].to_numpy(np.float64)
            for only in (mine.difference(theirs), theirs.difference(mine))
        )
        return of_class, of_rival

    def _images(self, label: str) -> pd.Index:
        """image_ids of the explained images with a label in the audited run."""
        table = rows_with_label(self.reliance.results, label, {"image_id": "image_id"})
        ids: list[str] = table["image_id"].to_pylist()
        return pd.Index(ids)

    def _accuracies(self, pair: EditedPair) -> dict[str, object]:
        row = self.accuracy
        row = row[(row["class"] == pair.cls) & (row["cue"] == pair.cue)]
        names = ("accuracy_with", "accuracy_without")
        return {name: float(row[name].iloc[0]) if len(row) else np.nan for name in names}

    @staticmethod
    def _of(frame: pd.DataFrame, cls: str, cue: str) -> Mapping[str, Any]:
        row = frame[(frame["class"] == cls) & (frame["cue"] == cue)].iloc[0]
        return {str(name): value for name, value in row.items()}

    def _known_images(self) -> None:
        """Raise UsageError unless the two runs share images."""
        audited = self.reliance.results.images([]).index
        if not self.classifier.images([]).index.isin(audited).any():
            raise UsageError(
                f"{self.classifier.folder.uri}: none of its image_ids is in "
                f"{self.reliance.results.folder.uri}: give both runs the same source.alias"
            )

    def _prepare(self, resources: Resources) -> ClassifierJob:
        return self._job(ReplicaSettings(self.config, resources.device, resources.threads, _BATCH))

    def _job(self, settings: ReplicaSettings) -> ClassifierJob:
        results, identity = self.reliance.results, self.classifier.run["identity"]
        return ClassifierJob(
            settings,
            identity["model.weights_sha256"],
            int(identity["model.layers"]),
            results.runs[0].preprocess,
            results.runs[0].grid,
            results.origin,
            Decoding.of_run(results.run["identity"]),
            self.reliance.folder.root,
        )


def _heat(table: pa.Table) -> float:
    """Mean heat of the class on the cue over the unchanged images."""
    unchanged = table.filter(pc.equal(table["kind"], str(Kind.ORIGINAL)))
    values = unchanged[HEAT].drop_null().to_numpy()
    return float(values.mean()) if len(values) else np.nan
