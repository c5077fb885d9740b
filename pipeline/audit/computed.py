"""What an audit computes, each once and when asked for: findings, suspicions, sums of maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import pandas as pd
from numpy.typing import NDArray

from pipeline.audit import evidence, exact_cues, findings, labelled_examples, ranking
from pipeline.audit.class_maps import Difference
from pipeline.audit.decisions import VerdictFile
from pipeline.audit.findings import Findings
from pipeline.audit.inference import Array
from pipeline.audit.label_design import agreement, merge_labels
from pipeline.audit.label_groups import Labels, read_labels, stored_design
from pipeline.audit.labelled_examples import LearnedThreshold
from pipeline.audit.names import Names, cues_and_decoys
from pipeline.audit.stored_maps import StoredMaps
from pipeline.audit.strata import require_stratum
from pipeline.audit.suspicion_scan import scan
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.results.results import Results
from pipeline.storage.location import Options


@dataclass(frozen=True)
class Computed:
    """What an audit computes on first use; `Audit` adds claims and tables.

    Attributes:
        results: results of the run.
        settings: gates and other settings.
        verdicts: file of the verdicts.
        options: storage options.
        tell: called with messages about long steps.
        label_files: files with people's answers, see `labels`.
        must_fit: False if answers that no longer fit the images are left out with a message, as
            for the file that nobody named.
    """

    results: Results
    settings: AuditConfig
    verdicts: VerdictFile
    options: Options | None = field(default=None, repr=False)
    tell: Callable[[str], None] = field(default=lambda text: None, repr=False)
    label_files: tuple[str, ...] = ()
    must_fit: bool = True

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
        if not uri:
            return ()
        cues = [*self.cues, *self.decoys]
        return tuple(labelled_examples.learn(self.results, cues, uri, gates))

    @cached_property
    def findings(self) -> Findings:
        """The association claim and all it is derived from; reads scores and no maps."""
        thresholds = {t.cue: t.threshold for t in self.learned if t.threshold is not None}
        thresholds |= self.settings.thresholds
        settings = self.settings.model_copy(update={"thresholds": thresholds})
        about = (self.results, self.cues, self.decoys, settings)
        if settings.stratum is not None:
            require_stratum(self.results, settings.stratum)
        try:
            return findings.find(*about, self.labels)
        except UsageError as error:
            if self.must_fit or not self.label_files:
                raise
            self.tell(f"the answers that were given in legrad view are left out: {error}")
            return findings.find(*about)

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
    def labels(self) -> Labels | None:
        """People's answers; None without files of labels."""
        if not self.label_files:
            return None
        answers = read_labels(self.label_files, self.options)
        if not self.must_fit:  # they may be about cues of a later run, which is not open
            is_known = answers["cue"].isin([*self.cues, *self.decoys])
            others = ", ".join(answers.loc[~is_known, "cue"].unique())
            if others:
                self.tell(f"answers on cues that this run does not have are left out: {others}")
            if not is_known.any():
                return None
            answers = answers[is_known].reset_index(drop=True)
        root = self.results.folder.root
        design = stored_design(root, self.label_files, self.settings.seed)
        return Labels(answers, design, self.label_files)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """How well people agree where two labelled the same image: see `agreement`."""
        return agreement(merge_labels([]) if self.labels is None else self.labels.answers)

    @property
    def evidence(self) -> pd.DataFrame:
        """One row per (class, cue): overlap of the maps, and heat on the cue. Reads maps."""
        return self._maps.evidence

    def suspicions(self) -> pd.DataFrame:
        """What to look at first, for every pair; never a flag: see `suspicion_scan.scan`.

        The first call for a run loads its model on this machine and encodes words with it.

        Raises:
            UsageError: the run has no embeddings, or its model cannot be loaded here.
        """
        if isinstance(self._suspicions, str):
            raise UsageError(f"no suspicions: {self._suspicions}")
        return self._suspicions.copy()

    @property
    def no_suspicions(self) -> str:
        """Why there are no suspicions; empty where there are."""
        return self._suspicions if isinstance(self._suspicions, str) else ""

    def first_look(self) -> Self:
        """The same audit by scores and properties alone: no maps, no suspicions, no edits.

        What both compute is computed once, and here.
        """
        settings = {"maps": False, "suspicions": False, "depth": "association", "classifier": None}
        first = replace(self, settings=self.settings.model_copy(update=settings))
        shared = {"findings": self.findings, "exact": self.exact}
        vars(first).update(shared)  # where cached properties keep their values
        return first

    @cached_property
    def _suspicions(self) -> pd.DataFrame | str:
        if not self.settings.suspicions:
            return "the settings turn them off"
        try:
            return scan(self.results, self.findings, self.decoys, self.tell)
        except UsageError as error:
            return str(error)

    def mean_map(self, cls: str | None, query: str) -> Array:
        """(h, w) mean raw map of a query over the images of a class, or of all classes (None).

        Raises:
            KeyError: there is no such class, or no maps of the query are stored.
        """
        return self._maps.mean(cls, query)

    def difference_map(self, cls: str, query: str) -> Difference:
        """A class's mean map minus that of all images, with a test; raises as `mean_map`."""
        return self._maps.difference(cls, query)

    def read_maps(self, queries: str | Sequence[str] | None = None) -> None:
        """Sum the maps of several queries (default all) in one stream, and keep the sums."""
        self._maps.read(queries)

    def heat_on(self, query: str, regions: Mapping[str, NDArray[Any]]) -> pd.Series:
        """Heat of a query on true regions; 1 is average, see `evidence.heat_on_region`.

        Args:
            regions: image_id -> (H, W) bool, a mask or a filled box over the whole image, in the
                image's size or any other.
        """
        return evidence.heat_by_image(self.results, query, regions)

    @property
    def _names(self) -> Names:
        return self._maps.names

    @cached_property
    def _maps(self) -> StoredMaps:
        cues = (*self.cues, *self.decoys)
        return StoredMaps(self.results, self.findings, self.settings, cues)
