"""`Audit`: the findings of a run as data frames, from which the command and the report are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from pipeline.audit import class_maps as maps
from pipeline.audit import evidence, exact_cues, findings, labelled_examples, overview, ranking
from pipeline.audit.class_maps import Difference, MapSums, Sample
from pipeline.audit.decisions import VerdictFile
from pipeline.audit.findings import Findings, Pair
from pipeline.audit.inference import Array
from pipeline.audit.labelled_examples import LearnedThreshold
from pipeline.audit.names import Names, cues_and_decoys, dataset_name, has_maps
from pipeline.audit.overview import Overview
from pipeline.audit.predictions import compare_predictions
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.results import Results, open_results
from pipeline.results.rows import name_list
from pipeline.schema import OWN_LABEL, score_column
from pipeline.storage.location import Options, open_location
from pipeline.storage.tables import write_table

if TYPE_CHECKING:  # imports torch and Ray
    from pipeline.reliance.reliance import Reliance

VERDICTS = "verdicts.csv"


@dataclass(frozen=True)
class Audit:
    """Which classes depend on which cues, and how certain that is. Everything is computed lazily.

    Attributes:
        results: results of the run.
        settings: gates and other settings.
        verdicts: file of the verdicts.
        options: storage options.
        tell: called with messages about long steps.
    """

    results: Results
    settings: AuditConfig
    verdicts: VerdictFile
    options: Options | None = field(default=None, repr=False)
    tell: Callable[[str], None] = field(default=lambda text: None, repr=False)
    _sums: dict[str, MapSums] = field(default_factory=dict, repr=False)

    @classmethod
    def from_results(
        cls,
        uri: str,
        storage_options: Options | None = None,
        *,
        settings: AuditConfig | Mapping[str, Any] | None = None,
        verdicts: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> "Audit":
        """Audit a run's output.

        Args:
            uri: output folder of the run.
            storage_options: options of its storage.
            settings: an `AuditConfig` or its values.
            verdicts: your own CSV file of verdicts; default ``_run/verdicts.csv`` of the run.
            tell: called with messages about long steps.

        Raises:
            UsageError: there is no run, or the settings name queries that it does not have.
        """
        results = open_results(uri, storage_options)
        chosen = (
            settings
            if isinstance(settings, AuditConfig)
            else AuditConfig.model_validate(dict(settings or {}))
        )
        default = results.folder.root.child("_run", VERDICTS)
        location = default if verdicts is None else open_location(verdicts)
        file = VerdictFile(location, verdicts or VERDICTS, dataset_name(results))
        cues_and_decoys(results, chosen)  # checks the names before anything is read
        return cls(results, chosen, file, storage_options, tell)

    @cached_property
    def cues(self) -> tuple[str, ...]:
        """Names of the cues."""
        return cues_and_decoys(self.results, self.settings)[0]

    @cached_property
    def decoys(self) -> tuple[str, ...]:
        """Names of the decoys, cues that the data do not have, by role or by settings."""
        return cues_and_decoys(self.results, self.settings)[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the audited classes, most frequent first."""
        population = self.findings.population
        return population.classes[: population.audited]

    @cached_property
    def learned(self) -> tuple[LearnedThreshold, ...]:
        """Thresholds learned from the examples that the settings name."""
        uri, gates = self.settings.examples, self.settings.gates
        return tuple(labelled_examples.learn(self.results, uri, gates)) if uri else ()

    @cached_property
    def findings(self) -> Findings:
        """The association claim and all it is derived from; reads scores and no maps."""
        thresholds = {t.cue: t.threshold for t in self.learned if t.threshold is not None}
        thresholds |= self.settings.thresholds
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        return findings.find(self.results, self.cues, self.decoys, settings)

    @cached_property
    def exact(self) -> pd.DataFrame:
        """Properties that need no model (sharpness, JPEG quality, ...) against every class.

        One row per pair, flagged ones first: see `pipeline.audit.exact_cues`. Empty for results
        that were stored without properties.
        """
        population = self.findings.population
        frame = exact_cues.find_exact(self.results, population, self.settings.gates)
        return ranking.rank(frame, "association")

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """One row per (class, cue): overlap of the maps, and heat on the cue. Reads maps."""
        columns = ["class", "cue", *evidence.COLUMNS]
        population, class_maps = self.findings.population, self._names.class_maps
        cues = [q for q in (*self.cues, *self.decoys) if has_maps(self.results, q)]
        if not self.settings.maps or not class_maps or not cues:
            return pd.DataFrame(columns=columns)
        sample = Sample.of(population, self.settings.evidence_images, self.settings.evidence_total)
        extra = ["width", "height", *(score_column(q) for q in cues)]
        queries = [*dict.fromkeys([*class_maps.values(), *cues])]
        self._sums.update(maps.read_maps(self.results, population, queries, sample, extra))
        if not sample.tables:
            return pd.DataFrame(columns=columns)
        compared = evidence.Evidence(self.results, population, sample, class_maps)
        return compared.frame(population, self.findings.presence)

    @cached_property
    def reliance(self) -> "Reliance":
        """The claims of reliance. Loads the model only where edits are missing."""
        from pipeline.reliance.reliance import Reliance

        return Reliance(self.results, self.findings, self.settings, self.options, self.tell)

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
            by: ``association``, ``clip_reliance`` or ``probe_reliance``.
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

    def mean_map(self, cls: str | None, query: str) -> Array:
        """(h, w) mean raw map of a query over the images of a class, or of all classes (None).

        Raises:
            KeyError: there is no such class, or no maps of the query are stored.
        """
        code = None if cls is None else self._names.code(cls)
        return self._map_sums(cls, query).mean(code).reshape(self.results.grid)

    def difference_map(self, cls: str, query: str) -> Difference:
        """A class's mean map minus that of all images, with a test; raises as `mean_map`."""
        sums = self._map_sums(cls, query)
        return maps.difference(sums, self._names.code(cls), self.results.grid)

    def read_maps(self, queries: str | Sequence[str] | None = None) -> None:
        """Sum the maps of several queries (default all) in one stream, and keep the sums."""
        names = [q.name for q in self.results.queries] if queries is None else name_list(queries)
        names += [OWN_LABEL] if queries is None else []
        missing = [n for n in names if has_maps(self.results, n) and n not in self._sums]
        self._sums.update(maps.read_maps(self.results, self.findings.population, missing))

    def heat_on(self, query: str, regions: Mapping[str, NDArray[Any]]) -> pd.Series:
        """Heat of a query on true regions; 1 is average, see `evidence.heat_on_regions`.

        Args:
            regions: image_id -> (H, W) bool, a mask or a filled box.
        """
        return evidence.heat_by_image(self.results, query, regions)

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
        frame, deep = self.findings.frame, self.settings.depth == "reliance"
        return ranking.with_reliance(frame, self.reliance.frame) if deep else frame

    @cached_property
    def _with_evidence(self) -> pd.DataFrame:
        """All pairs, unsorted, with claims and evidence."""
        frame = self._claims.merge(self.evidence, on=["class", "cue"], how="left")
        return evidence.with_ranks(frame)

    @cached_property
    def _ranked_rows(self) -> pd.DataFrame:
        """All pairs by (class, cue), with their position in the ranking."""
        ranked = ranking.rank(self._with_evidence, "association").rename_axis("position")
        return ranked.reset_index().set_index(["class", "cue"])

    @cached_property
    def _names(self) -> Names:
        return Names(self.results, self.findings)

    def _map_sums(self, cls: str | None, query: str) -> MapSums:
        name = self._names.maps_of(cls, query)
        if name not in self._sums:
            self.read_maps([name])
        return self._sums[name]

    @cached_property
    def summary(self) -> Overview:
        """Counts, failures, caveats, and the meaning of each claim."""
        name = self.verdicts.dataset
        return overview.overview(
            self.results, self.findings, self._claims, name, self.decoys, self.settings
        )
