"""`Audit`: the findings of a run as data frames, from which the command and the report are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.audit import evidence, findings, overview, ranking
from pipeline.audit.computed import Computed
from pipeline.audit.decisions import VerdictFile
from pipeline.audit.findings import Pair
from pipeline.audit.label_groups import LABELS
from pipeline.audit.names import check_names, dataset_name
from pipeline.audit.overview import Overview
from pipeline.audit.predictions import compare_predictions
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery import TOP, discover, with_heat, words
from pipeline.errors import UsageError
from pipeline.results import open_results
from pipeline.results.joined_run import as_one
from pipeline.storage.location import Options, open_location
from pipeline.storage.tables import write_table

if TYPE_CHECKING:  # imports torch and Ray
    from pipeline.reliance.model_reliance import ModelReliance
    from pipeline.reliance.reliance import Reliance

VERDICTS = "verdicts.csv"


@dataclass(frozen=True)
class Audit(Computed):
    """Which classes depend on which cues, and how certain that is. Everything is computed lazily.

    See `Computed` for its attributes.
    """

    @classmethod
    def from_results(
        cls,
        uri: str | Sequence[str],
        storage_options: Options | None = None,
        *,
        settings: AuditConfig | Mapping[str, Any] | None = None,
        verdicts: str | None = None,
        labels: Sequence[str] | None = None,
        class_labels: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> "Audit":
        """Audit a run's output.

        Args:
            uri: output folder of the run, or a list of outputs over the same images, such as a
                later run with new queries. The first one has the labels, and keeps verdicts and
                all else that is stored.
            storage_options: options of its storage.
            settings: an `AuditConfig` or its values.
            verdicts: your own CSV file of verdicts; default ``_run/verdicts.csv`` of the run.
            labels: files with people's answers on images that `legrad label` drew; default
                ``_run/labels.csv`` of the run, where `legrad view` keeps them, if it exists and
                fits the images.
            class_labels: table that replaces the labels of the images, see `open_results`.
            tell: called with messages about long steps.

        Raises:
            UsageError: there is no run, the settings name queries that it does not have, or runs
                of different models are to be joined.
        """
        results = as_one(open_results(uri, storage_options, class_labels=class_labels))
        chosen = (
            settings
            if isinstance(settings, AuditConfig)
            else AuditConfig.model_validate(dict(settings or {}))
        )
        default = results.folder.root.child("_run", VERDICTS)
        location = default if verdicts is None else open_location(verdicts)
        file = VerdictFile(location, verdicts or VERDICTS, dataset_name(results))
        check_names(results, chosen)
        named = labels is not None
        if labels is None:
            kept = results.folder.root.child("_run", LABELS).exists() and class_labels is None
            labels = (f"{results.folder.uri}/_run/{LABELS}",) if kept else ()
        return cls(results, chosen, file, storage_options, tell, tuple(labels), named)

    @cached_property
    def reliance(self) -> "Reliance":
        """The claims of reliance. Loads the model only where edits are missing."""
        from pipeline.reliance.reliance import Reliance

        findings = self.findings.for_edits
        return Reliance(self.results, findings, self.settings, self.options, self.tell)

    @cached_property
    def model_reliance(self) -> "ModelReliance":
        """The claim about your own classifier; missing edits are computed.

        Raises:
            UsageError: the settings name no classifier, or not a run of a classifier.
        """
        from pipeline.reliance.model_reliance import ModelReliance

        uri = self.settings.classifier
        if uri is None:
            raise UsageError(
                "model_reliance: expected the setting classifier, an output of its run"
            )
        return ModelReliance.of(self.reliance, open_results(uri, self.options))

    def discover(
        self,
        vocabulary: str | None = None,
        *,
        top: int = TOP,
        decoys: bool = False,
        heat: bool = True,
    ) -> pd.DataFrame:
        """Words of a vocabulary, things and places without a word, that come with a class.

        They are found on one half of the images (`pipeline.audit.split`) and tested on the other.
        The first call for a run loads its model on this machine and encodes the words with it. Maps
        of the listed candidates are computed by a separate run, which reads images again.

        Args:
            vocabulary: a file with one phrase per line; default the shipped one.
            top: words that are tested for each class, from each of the two scans.
            decoys: return the words that were drawn at random and tested in the same way instead.
            heat: whether maps are computed.

        Returns:
            One row per class and word, confirmed ones first. ``class``, ``word``; ``kind``
            (``cue``; ``part`` if the word is a part of the class in WordNet; ``thing`` or ``place``
            without a word); ``rank`` in the class, of each kind; ``also`` (words with nearly
            the same scores, or the nearest words with the correlation of their scores);
            ``found_by`` (``shift``, ``probe`` or both, ``clusters`` or ``maps``); ``effect`` and
            ``effect_again`` (how far the class's mean score exceeds what similarity explains, in
            standard deviations over the vocabulary, on the first and the second half; for a place,
            how far its heat exceeds the usual heat, in units of the variation between classes);
            ``probe_effect`` (the same for weights of a linear probe); ``probe_score`` (the score of
            BEE); ``likeness`` (similarity of the texts of word and class); ``confirmed``, and
            ``reason`` where it is not; ``images`` of the class in the second half, ``presence``,
            ``share``, ``share_elsewhere``, ``odds_ratio``, ``odds_low``, ``odds_high`` (95 %) and
            ``q``, as in `rank`; ``heat_on_class``, for listed rows: the class's heat where the
            word's heat is, as a share of its heat where its own heat is (from about .6 the word
            names a part of the object or the object itself, below it something beside the object);
            and ``picture``, a file in ``_run`` that shows the clearest images with heat. Decoys
            have only the columns of the test.

        Raises:
            UsageError: the run has no embeddings, or its model cannot be loaded here.
        """
        phrases = words(vocabulary, self.options)
        found = discover(self.results, self.settings, phrases, top, self.tell)
        if decoys:
            return found.decoys
        if heat:
            found = with_heat(self.results, self.settings, found, self.tell, self.options)
        return found.candidates

    def rank(
        self,
        by: str = "association",
        *,
        decoys: bool = False,
        flagged: bool = False,
        exact: bool = False,
    ) -> pd.DataFrame:
        """All pairs of class and cue, flagged ones first, by the claim's lower bound.

        Args:
            by: ``association``, ``clip_reliance``, ``probe_reliance`` or ``model_reliance``.
            decoys: whether decoys are included.
            flagged: whether only pairs flagged for the claim are returned.
            exact: whether the properties of `exact` are included; they have no other claim.

        Returns:
            One row per pair, see `pipeline.audit.ranking`, with columns for the evidence and the
            verdicts.

        Raises:
            UsageError: there is no such claim.
        """
        frame = self._with_evidence.merge(self.verdicts.read(), on=["class", "cue"], how="left")
        frame = frame if decoys else frame[~frame["decoy"]]
        ranked = ranking.rank(ranking.with_exact(frame, self.exact) if exact else frame, by)
        return ranked[ranked[f"{by}__flag"]].reset_index(drop=True) if flagged else ranked

    def pair(self, cls: str, cue: str) -> Pair:
        """Everything about one pair.

        Raises:
            KeyError: there is no such class or cue.
        """
        scores = findings.pair_scores(self.findings, self._names.cue(cue), self._names.code(cls))
        row = self._ranked_rows.loc[[(cls, cue)]].reset_index()
        row = row.merge(self.verdicts.read(), on=["class", "cue"], how="left")
        finding = row.set_index("position").iloc[0]
        verdict = finding[["verdict", "note", "who", "when"]].dropna()
        said = {str(name): str(value) for name, value in verdict.items()}
        return Pair(**vars(scores), finding=finding, verdict=said)

    def densities(self, cue: str) -> pd.DataFrame:
        """Score densities of a cue in every class: see `pipeline.audit.findings.densities`."""
        return findings.densities(self.findings, self._names.cue(cue))

    def images(
        self,
        cls: str,
        cue: str,
        *,
        present: bool | None = None,
        sort: str = "score",
        limit: int | None = None,
    ) -> pd.DataFrame:
        """The images of a class by image_id: score, presence, class_score, shard, key.

        Args:
            present: True for images with the cue only, False for images without it.
            sort: ``score`` or ``presence`` of the cue, ``class_score`` (highest first), or
                ``image_id``.
            limit: largest number of images.

        Raises:
            KeyError: there is no such class or cue.
            UsageError: ``sort`` is unknown, or ``present`` is given and presence is not measured.
        """
        index, code = self._names.cue(cue), self._names.code(cls)
        presence = self.findings.presence
        if present is not None and not presence.measured[index]:
            raise UsageError(f"presence of {cue} is not measured: {presence.reason[index]}")
        class_query = self._names.class_queries.get(cls)
        frame = findings.images(self.results, self.findings, index, code, class_query)
        return findings.ordered(frame, present, sort, limit)

    def predictions(self, uri: str) -> pd.DataFrame:
        """Accuracy of your own model with and without each cue: see `compare_predictions`."""
        population, presence = self.findings.population, self.findings.presence
        return compare_predictions(self.results, population, presence, uri)

    def annotate(
        self, cls: str, cue: str, verdict: str, note: str = "", who: str | None = None
    ) -> None:
        """Record a verdict on a pair: ``core``, ``spurious`` or ``unsure``.

        Args:
            who: name to record; default the user's.

        Raises:
            KeyError: there is no such class or cue.
            UsageError: there is no such verdict, or the file cannot be written.
        """
        self._names.cue(cue), self._names.code(cls)
        self.verdicts.add(cls, cue, verdict, note, who)

    def compare(self, other: "Audit") -> pd.DataFrame:
        """What changed from another audit to this one: see `pipeline.audit.ranking.changes`."""
        return ranking.changes(other.findings.frame, self.findings.frame)

    def export(self, uri: str, *, decoys: bool = True) -> None:
        """Write the ranking as ``.csv``, ``.parquet`` or ``.json``.

        Raises:
            UsageError: the name has another ending, or cannot be written to.
        """
        write_table(self.rank(decoys=decoys), uri, self.options)

    @cached_property
    def _claims(self) -> pd.DataFrame:
        """All pairs, unsorted, with the claims that the depth asks for."""
        if self.settings.depth != "reliance":
            return self.findings.frame
        if self.settings.classifier is None:
            return ranking.with_reliance(self.findings.frame, self.reliance.frame)
        own = self.model_reliance.frame
        tested = self.reliance.frame.merge(own, on=["class", "cue"])
        return ranking.with_reliance(self.findings.frame, tested, ranking.CLAIMS[1:])

    @cached_property
    def _with_evidence(self) -> pd.DataFrame:
        """All pairs, unsorted, with claims and evidence."""
        frame = self._claims.merge(self.evidence, on=["class", "cue"], how="left")
        if isinstance(self._suspicions, str):
            return evidence.with_ranks(frame)
        return evidence.with_ranks(frame).merge(self._suspicions, on=["class", "cue"], how="left")

    @cached_property
    def _ranked_rows(self) -> pd.DataFrame:
        """All pairs by (class, cue), with their position in the ranking."""
        ranked = ranking.rank(self._with_evidence, "association").rename_axis("position")
        return ranked.reset_index().set_index(["class", "cue"])

    @cached_property
    def summary(self) -> Overview:
        """Counts, failures, caveats, and the meaning of each claim."""
        name = self.verdicts.dataset
        return overview.overview(
            self.results, self.findings, self._claims, name, self.decoys, self.settings
        )
