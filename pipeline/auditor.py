"""Audit: everything the command prints, and more, as frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from pipeline.audit import class_maps as maps
from pipeline.audit import evidence, overview, ranking
from pipeline.audit import labelled_examples as examples
from pipeline.audit import pair as pairs
from pipeline.audit.class_maps import Difference, MapSums, Sample
from pipeline.audit.compare import changes
from pipeline.audit.findings import Findings, find
from pipeline.audit.histogram_sums import Array
from pipeline.audit.labelled_examples import Learned
from pipeline.audit.names import Lookup, cues_and_decoys, dataset_name, has_maps
from pipeline.audit.overview import Overview
from pipeline.audit.pair import ORDERS, Pair
from pipeline.audit.predictions import compare_predictions
from pipeline.audit.verdicts import VerdictFile
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.results import Results, open_results
from pipeline.schema import OWN_LABEL, score_column
from pipeline.storage.location import Options, open_location
from pipeline.storage.tables import write_table

if TYPE_CHECKING:  # it brings torch and Ray
    from pipeline.reliance.reliance import Reliance

VERDICTS = "verdicts.csv"


@dataclass(frozen=True)
class Audit:
    """Which classes hang on which cues, and how sure that is. Computed when first asked for.

    Attributes:
        results: of the run.
        settings: gates and what goes with them.
        verdicts: what people decided.
        options: of the storage.
        tell: told what takes a while.
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
            uri: its folder.
            storage_options: of it.
            settings: an `AuditConfig` or its values.
            verdicts: CSV file of verdicts, kept by you; default ``_run/verdicts.csv`` of the run.
            tell: told what takes a while.

        Raises:
            UsageError: no run there, or settings name queries that it does not have.
        """
        results = open_results(uri, storage_options)
        chosen = (
            settings
            if isinstance(settings, AuditConfig)
            else AuditConfig.model_validate(dict(settings or {}))
        )
        place = results.folder.root.child("_run", VERDICTS)
        place = place if verdicts is None else open_location(verdicts)
        file = VerdictFile(place, verdicts or VERDICTS, dataset_name(results))
        cues_and_decoys(results, chosen)  # names are checked before anything is read
        return cls(results, chosen, file, storage_options, tell)

    @cached_property
    def cues(self) -> tuple[str, ...]:
        """Queries that are cues."""
        return cues_and_decoys(self.results, self.settings)[0]

    @cached_property
    def decoys(self) -> tuple[str, ...]:
        """Queries that the data lack, by role or by settings."""
        return cues_and_decoys(self.results, self.settings)[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels, most frequent first."""
        return self.findings.known.classes[: self.findings.known.audited]

    @cached_property
    def learned(self) -> tuple[Learned, ...]:
        """Thresholds from the examples in the settings."""
        uri = self.settings.examples
        return tuple(examples.learn(self.results, uri, self.settings.gates)) if uri else ()

    @cached_property
    def findings(self) -> Findings:
        """Claim A in all its parts; reads scores, no maps."""
        own = {one.cue: one.threshold for one in self.learned if one.threshold is not None}
        settings = self.settings.model_copy(update={"thresholds": own | self.settings.thresholds})
        return find(self.results, self.cues, self.decoys, settings)

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Claim B described, a row a (class, cue): overlap excess, heat on the cue. Reads maps."""
        columns = ["class", "cue", *evidence.COLUMNS]
        known, own = self.findings.known, self._lookup.own_maps
        wanted = [q for q in (*self.cues, *self.decoys) if has_maps(self.results, q)]
        if not self.settings.maps or not own or not wanted:
            return pd.DataFrame(columns=columns)
        sample = Sample.of(known, self.settings.evidence_images, self.settings.evidence_total)
        extra = ["width", "height", *(score_column(q) for q in wanted)]
        queries = [*dict.fromkeys([*own.values(), *wanted])]
        self._sums.update(maps.read_maps(self.results, known, queries, sample, extra))
        if not sample.tables:
            return pd.DataFrame(columns=columns)
        found = evidence.Evidence(self.results, known, sample, own)
        return found.frame(known, self.findings.presence)

    @cached_property
    def reliance(self) -> "Reliance":
        """Claims B and C'; loads the model where edits are not there. `rank` asks by the depth."""
        from pipeline.reliance.reliance import Reliance

        return Reliance(self.results, self.findings, self.settings, self.options, self.tell)

    def rank(
        self, by: str = "association", *, decoys: bool = False, flagged: bool = False
    ) -> pd.DataFrame:
        """All pairs of class and cue, flagged ones first, by the claim's lower bound.

        Args:
            by: ``association``, ``clip_reliance`` or ``probe_reliance``.
            decoys: whether decoy cues are among them.
            flagged: only what is flagged for the claim.

        Returns:
            See `pipeline.audit.ranking`; with the evidence's columns and the verdicts beside.

        Raises:
            UsageError: no such claim.
        """
        frame = self._claims.merge(self.evidence, on=["class", "cue"], how="left")
        frame = evidence.with_ranks(frame)
        frame = frame.merge(self.verdicts.read(), on=["class", "cue"], how="left")
        ranked = ranking.rank(frame if decoys else frame[~frame["decoy"]], by)
        return ranked[ranked[f"{by}__flag"]].reset_index(drop=True) if flagged else ranked

    def pair(self, cls: str, cue: str) -> Pair:
        """Everything about one pair.

        Raises:
            KeyError: no such class or cue.
        """
        place, code = self._lookup.cue(cue), self._lookup.code(cls)
        frame = self.rank(decoys=True)
        row = frame[(frame["class"] == cls) & (frame["cue"] == cue)].iloc[0]
        known = bool(self.findings.presence.measured[place])
        names = self.findings.presence.histograms.cues
        said = row[["verdict", "note", "who", "when"]].dropna()
        return Pair(
            finding=row,
            densities=pairs.compared(self.findings, place, code),
            threshold=float(self.findings.presence.threshold[place, code])
            if known
            else float("nan"),
            beside=self.findings.together.beside(place, code, names),
            verdict={str(name): str(value) for name, value in said.items()},
        )

    def densities(self, cue: str) -> pd.DataFrame:
        """Score densities of a cue in every class, with the threshold: see `pair.densities`."""
        return pairs.densities(self.findings, self._lookup.cue(cue))

    def images(
        self,
        cls: str,
        cue: str,
        *,
        present: bool | None = None,
        sort: str = "score",
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Images of a class by image_id: score, presence, class_score, shard, key.

        Args:
            present: only those with (True) or without (False) the cue.
            sort: ``score`` or ``presence`` of the cue, ``class_score`` (highest first), or
                ``image_id``.
            limit: only the first so many.

        Raises:
            KeyError: no such class or cue.
            UsageError: unknown order, or presence is asked for where it is not measured.
        """
        if sort not in ORDERS:
            raise UsageError(f"sort by {sort!r}: expected one of {', '.join(ORDERS)}")
        place, code = self._lookup.cue(cue), self._lookup.code(cls)
        if present is not None and not self.findings.presence.measured[place]:
            why = self.findings.presence.reason[place]
            raise UsageError(f"presence of {cue} is not measured: {why}")
        own = self._lookup.queries.get(cls)
        frame = pairs.images(self.results, self.findings, (place, code), own)
        return pairs.ordered(frame, present, sort, limit)

    def mean_map(self, cls: str | None, query: str) -> Array:
        """(h, w) mean raw map of a query over a class's images, or over all (None).

        Raises:
            KeyError: no such class, or no maps of such a query.
        """
        code = None if cls is None else self._lookup.code(cls)
        return self._map_sums(cls, query).mean(code).reshape(self.results.grid)

    def difference_map(self, cls: str, query: str) -> Difference:
        """A class's mean map minus that of all, with the fixed-location test; raises as above."""
        sums = self._map_sums(cls, query)
        return maps.difference(sums, self._lookup.code(cls), self.results.grid)

    def read_maps(self, queries: Sequence[str] | None = None) -> None:
        """Sum the maps of several queries (default all) in one stream; they are kept."""
        names = [q.name for q in self.results.queries] if queries is None else list(queries)
        names += [OWN_LABEL] if queries is None else []
        stored = [n for n in names if has_maps(self.results, n) and n not in self._sums]
        self._sums.update(maps.read_maps(self.results, self.findings.known, stored))

    def heat_on(self, query: str, regions: Mapping[str, NDArray[Any]]) -> pd.Series:
        """Heat of a query on true regions: mask or filled box (H, W) bool, by image_id.

        Returns:
            By image_id, 1 = average; see `evidence.heat_on_regions`.
        """
        return evidence.heat_by_image(self.results, query, regions)

    def predictions(self, uri: str) -> pd.DataFrame:
        """Accuracy of your own model with and without each cue: see `predictions`."""
        found = self.findings
        return compare_predictions(self.results, found.known, found.presence, uri)

    def annotate(
        self, cls: str, cue: str, verdict: str, note: str = "", who: str | None = None
    ) -> None:
        """Keep a verdict on a pair: ``core``, ``spurious`` or ``unsure``.

        Raises:
            KeyError: no such class or cue.
            UsageError: no such verdict.
        """
        self._lookup.cue(cue), self._lookup.code(cls)
        self.verdicts.add(cls, cue, verdict, note, who)

    def compare(self, other: "Audit") -> pd.DataFrame:
        """What changed from another audit to this one: see `change.changes`."""
        return changes(other.findings.frame, self.findings.frame)

    def export(self, uri: str, *, decoys: bool = True) -> None:
        """Write the ranking as ``.csv``, ``.parquet`` or ``.json``.

        Raises:
            UsageError: another ending, or the place cannot be written.
        """
        write_table(self.rank(decoys=decoys), uri, self.options)

    @cached_property
    def _claims(self) -> pd.DataFrame:
        """All pairs with all claims that were asked for, unsorted."""
        frame, deep = self.findings.frame, self.settings.depth == "reliance"
        return ranking.with_reliance(frame, self.reliance.frame) if deep else frame

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.results, self.findings)

    def _map_sums(self, cls: str | None, query: str) -> MapSums:
        name = self._lookup.maps_of(cls, query)
        if name not in self._sums:
            self.read_maps([name])
        return self._sums[name]

    @cached_property
    def summary(self) -> Overview:
        """Counts, failures, caveats, and what each claim means and does not mean."""
        name = self.verdicts.dataset
        return overview.overview(
            self.results, self.findings, self._claims, name, self.decoys, self.settings
        )
