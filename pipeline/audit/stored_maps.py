"""The maps of a run as the audit reads them: summed by class once and kept, and as evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from pipeline.audit import class_maps, evidence
from pipeline.audit.class_maps import Difference, MapSample, MapSums
from pipeline.audit.findings import Findings
from pipeline.audit.inference import Array
from pipeline.audit.names import Names, has_maps
from pipeline.config.audit_settings import AuditConfig
from pipeline.results.results import Results
from pipeline.results.rows import name_list
from pipeline.schema import OWN_LABEL, score_column


@dataclass(frozen=True)
class StoredMaps:
    """Maps of one run; sums that were read are kept.

    Attributes:
        results: results of the run.
        findings: the association claim.
        settings: settings of the audit.
        cues: names of the cues and decoys.
    """

    results: Results
    findings: Findings
    settings: AuditConfig
    cues: tuple[str, ...]
    _sums: dict[str, MapSums] = field(default_factory=dict, repr=False)

    @cached_property
    def names(self) -> Names:
        """Classes, cues and map columns by name."""
        return Names(self.results, self.findings)

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """One row per (class, cue): overlap of the maps, and heat on the cue."""
        columns = ["class", "cue", *evidence.COLUMNS]
        population, of_class = self.findings.population, self.names.class_maps
        cues = [query for query in self.cues if has_maps(self.results, query)]
        if not self.settings.maps or not of_class or not cues:
            return pd.DataFrame(columns=columns)
        sample = MapSample.of(
            population, self.settings.evidence_images, self.settings.evidence_total
        )
        extra = ["width", "height", *(score_column(query) for query in cues)]
        queries = [*dict.fromkeys([*of_class.values(), *cues])]
        read = class_maps.read_maps(self.results, population, queries, sample, extra)
        self._sums.update(read)
        if not sample.tables:
            return pd.DataFrame(columns=columns)
        compared = evidence.Evidence(self.results, population, sample, of_class)
        return compared.frame(population, self.findings.presence)

    def mean(self, cls: str | None, query: str) -> Array:
        """(h, w) mean raw map; raises as `Audit.mean_map`."""
        code = None if cls is None else self.names.code(cls)
        return self._of(cls, query).mean(code).reshape(self.results.grid)

    def difference(self, cls: str, query: str) -> Difference:
        """A class's mean map minus that of all images; raises as `Audit.mean_map`."""
        sums = self._of(cls, query)
        return class_maps.difference(sums, self.names.code(cls), self.results.grid)

    def read(self, queries: str | Sequence[str] | None = None) -> None:
        """Sum the maps of several queries (default all) in one stream."""
        names = [q.name for q in self.results.queries] if queries is None else name_list(queries)
        names += [OWN_LABEL] if queries is None else []
        missing = [n for n in names if has_maps(self.results, n) and n not in self._sums]
        population = self.findings.population
        self._sums.update(class_maps.read_maps(self.results, population, missing))

    def _of(self, cls: str | None, query: str) -> MapSums:
        name = self.names.maps_of(cls, query)
        if name not in self._sums:
            self.read([name])
        return self._sums[name]
