"""The claims of reliance for a run: probe, edits and effects, computed when they are needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import ray
from numpy.typing import NDArray

from legrad.queries.query import Query
from pipeline.audit.findings import Findings
from pipeline.audit.names import Names
from pipeline.cluster.resources import Resources
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.reliance.claims import Claims, EditedPair, TextDirections
from pipeline.reliance.edit_examples import EditExample, EditPictures, ProbeContrast, per_image
from pipeline.reliance.edit_run import EditJob, run_edits
from pipeline.reliance.edits import Kind, PairEdits, read_edits, read_texts, write_texts
from pipeline.reliance.probe import (
    GROUPS,
    Probe,
    ProbeSums,
    collect,
    cross_fitted,
    fit,
    probe_quality,
)
from pipeline.reliance.shortlist import (
    NO_PAIR,
    EditCosts,
    Listed,
    PairTask,
    control_queries,
    costs,
    shortlist,
    tasks,
)
from pipeline.results.reproduce import model_config
from pipeline.results.results import Results
from pipeline.runs.manifest import RunFolder
from pipeline.runs.model_facts import Prepared
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings, prepare
from pipeline.storage.location import Location, Options, open_location

if TYPE_CHECKING:
    from pipeline.progress.watch import Watch

_BATCH = 32


@dataclass(frozen=True)
class Reliance:
    """The claims of reliance for the flagged pairs of an audit.

    Attributes:
        results: results of the run.
        findings: the association claim.
        settings: settings of the audit.
        options: storage options.
        tell: called with messages about long steps.
    """

    results: Results
    findings: Findings
    settings: AuditConfig
    options: Options | None = None
    tell: Callable[[str], None] = lambda text: None

    @cached_property
    def folder(self) -> RunFolder:
        """Folder for edits, texts and probe maps."""
        work = self.settings.reliance.work
        run = self.results.folder
        if work is None:
            return RunFolder(run.root.child("_run", "reliance"), f"{run.uri}/_run/reliance")
        return RunFolder(open_location(work, self.options), work)

    @cached_property
    def sums(self) -> ProbeSums:
        """Sums of the embeddings, by one pass over them."""
        presence = self.findings.presence
        names = [presence.histograms.cues[cue] for cue in np.flatnonzero(presence.measured)]
        return collect(self.results, self.findings.population, presence, names)

    @cached_property
    def probes(self) -> list[Probe]:
        """For every fold, the probe that did not see it."""
        return cross_fitted(self.sums, np.ones(GROUPS), self.settings.reliance.ridge)

    @cached_property
    def rivals(self) -> NDArray[np.int64]:
        """(K,) code of each class's nearest rival by a probe fitted to all images; -1 for none."""
        population, least = self.findings.population, self.settings.gates.class_images
        probe = fit(self.sums, np.ones(GROUPS), self.settings.reliance.ridge)
        return probe.rivals(self.sums.shared, least, population.audited)

    @cached_property
    def probe_quality(self) -> pd.DataFrame:
        """How well the probe recognises each class, see `probe_quality`; a second pass."""
        return probe_quality(self.results, self.findings.population, self.probes, self.rivals)

    @property
    def judged(self) -> pd.DataFrame:
        """Earlier name of `probe_quality`."""
        return self.probe_quality

    @cached_property
    def listed(self) -> list[Listed]:
        """The pairs that are tested."""
        return shortlist(self.findings, self.rivals, self.settings.reliance)

    @cached_property
    def tasks(self) -> dict[str, PairTask]:
        """Name of the file of edits -> task of the pair."""
        about = self._about()
        made = tasks(self.results, self.findings, self.listed, self.settings.reliance)
        return {f"edits-{task.digest(about)}.parquet": task for task in made}

    @property
    def missing(self) -> dict[str, PairTask]:
        """The tasks whose edits are not stored yet."""
        stored = set(self.folder.root.files("edits-*.parquet"))
        return {name: task for name, task in self.tasks.items() if name not in stored}

    @property
    def costs(self) -> EditCosts:
        """Costs of testing the pairs; reads the results and loads no model."""
        return costs(list(self.missing.values()), len(self.tasks))

    @cached_property
    def pairs(self) -> dict[tuple[str, str], EditedPair]:
        """(class, cue) -> edits of the pair; edits that are not stored yet are made.

        Raises:
            UsageError: the model cannot be loaded or has other weights, or the output cannot be
                written (``reliance.work`` names another folder).
            RunError: editing failed; the same command continues it.
        """
        missing = self.missing
        if missing or (self.tasks and not self._texts_file().exists()):
            run_edits(missing, self._prepare, self.folder, self.tell)
        rivals = {(pair.cls, pair.cue): pair.rival for pair in self.listed}
        pairs = {}
        for name, task in self.tasks.items():
            key = (task.cls, task.cue)
            edits = PairEdits.of(read_edits(self.folder.root.child(name)))
            pairs[key] = EditedPair(*key, rivals[key], edits, task.other_labels)
        return pairs

    @cached_property
    def claims(self) -> Claims:
        """The statistics of the tested pairs."""
        return Claims(self.findings, self.sums, self.probe_quality, self.directions, self.settings)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per tested pair: class, cue, and the columns of both claims."""
        pairs = list(self.pairs.values())
        return self.claims.frame(pairs) if pairs else pd.DataFrame(columns=["class", "cue"])

    def counterfactual(self, cls: str, cue: str) -> pd.DataFrame:
        """The effect of every edit of a tested pair, image by image, see `per_image`.

        Raises:
            KeyError: the pair was not tested.
        """
        pair = self._tested(cls, cue)
        return per_image(self.claims, pair, self.contrast(cls, pair.rival))

    def examples(self, cls: str, cue: str, count: int = 4, side: int = 192) -> list[EditExample]:
        """Pictures of up to ``count`` deletions and as many insertions of a tested pair.

        Images that can no longer be fetched are omitted.

        Args:
            side: approximate size of the pictures in pixels.

        Raises:
            KeyError: the pair was not tested.
        """
        contrast = self.contrast(cls, self._tested(cls, cue).rival)
        (name,) = (n for n, task in self.tasks.items() if (task.cls, task.cue) == (cls, cue))
        table = read_edits(self.folder.root.child(name))
        pictures = EditPictures(self.results, self.tasks[name], table, contrast, side)
        deletions = pictures.examples(Kind.DELETED, Kind.DELETED_ELSEWHERE)
        insertions = pictures.examples(Kind.INSERTED, Kind.INSERTED_OTHER)
        return [*islice(deletions, count), *islice(insertions, count)]

    def contrast(self, cls: str, rival: str) -> ProbeContrast:
        """The cross-fitted probe of a class against another."""
        index = self.findings.population.index
        return ProbeContrast(self.probes, index[cls], index[rival])

    def probe_maps(self, watch: "Watch | None" = None) -> Results:
        """Results with maps of where the probe looks: see `probe_maps.probe_maps`.

        `probe_maps.probe_query` names the query of a class against its rival.

        Raises:
            UsageError: no pair is tested, or the output cannot be written.
        """
        from pipeline.reliance.probe_maps import FOLD, fold_images, probe_directions, probe_maps

        classes = list(dict.fromkeys(pair.cls for pair in self.listed))
        if not classes:
            raise UsageError("probe maps: no pair is flagged for association, so none is tested")
        codes = np.array([self.findings.population.index[cls] for cls in classes], np.int64)
        vectors = probe_directions(self.probes[FOLD], classes, codes, self.rivals[codes])
        labels = {label for pair in self.listed for label in (pair.cls, pair.rival)}
        image_ids = fold_images(self.results, labels, self.settings.reliance.images)
        return probe_maps(self.results, self.folder, vectors, image_ids, self.options, watch)

    @cached_property
    def directions(self) -> TextDirections:
        """Directions of cues, of classes, and of classes with a cue."""
        texts = read_texts(self._texts_file())
        names = Names(self.results, self.findings)
        classes = {
            label: texts[query]
            for label, query in names.class_queries.items()
            if label in self.findings.population.index
        }
        controls = {}
        for number, pair in enumerate(self.listed):
            with_cue, plain = texts.get(f"control_{number}"), classes.get(pair.cls)
            if with_cue is not None and plain is not None:
                controls[pair.cls, pair.cue] = with_cue - plain
        cues = {cue: texts[cue] for cue in self.findings.presence.histograms.cues}
        return TextDirections(cues, classes, controls)

    def _about(self) -> dict[str, Any]:
        """Settings besides the task that decide the edits; a part of the files' digests."""
        identity, config = self.results.run["identity"], self.settings.reliance
        shares = [config.region, config.object_region, config.floor, config.masks]
        return {
            "model": {key: value for key, value in identity.items() if key.startswith("model.")},
            "queries": {key: value for key, value in identity.items() if key.startswith("query.")},
            "shares": shares,
            "version": 2,
        }

    def _queries(self) -> list[Query]:
        """The queries of the run and those of the positive controls."""
        controls = control_queries(self.results, self.findings, self.listed)
        return [*self.results.queries, *controls]

    def _prepare(self, resources: Resources) -> EditJob:
        """Load the model once, encode the texts, and store them with the edits."""
        self.tell("loading the model and encoding the texts")
        identity = self.results.run["identity"]
        settings = ReplicaSettings(
            model_config(self.results.run), resources.device, resources.threads, _BATCH
        )
        queries = self._queries()
        remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(prepare)
        prepared: Prepared = ray.get(remote.remote(settings, queries))
        if prepared.digest != identity["model.weights_sha256"]:
            raise UsageError(
                f"{self.results.folder.uri}: {settings.model.name} has other weights here than in "
                "the run"
            )
        texts = {q.name: row for q, row in zip(queries, prepared.text_features, strict=True)}
        write_texts(self._texts_file(), texts)
        masks = self.settings.reliance.masks
        return EditJob(
            settings,
            prepared.digest,
            texts,
            self.settings.reliance,
            self.results.origin,
            Decoding.of_run(identity),
            None if masks is None else open_location(masks, self.options),
            self.folder.root,
        )

    def _texts_file(self) -> Location:
        """The file with the direction of each query's text."""
        texts = [query.model_dump(mode="json") for query in self._queries()]
        digest = NO_PAIR.digest({"texts": texts, **self._about()})
        return self.folder.root.child(f"directions-{digest}.npz")

    def _tested(self, cls: str, cue: str) -> EditedPair:
        pair = self.pairs.get((cls, cue))
        if pair is None:
            tested = ", ".join(f"{a} / {b}" for a, b in list(self.pairs)[:8]) or "none"
            raise KeyError(f"{cls!r}, {cue!r} was not tested; tested are {tested}")
        return pair
