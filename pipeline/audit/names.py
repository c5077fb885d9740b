"""Look up classes, cues and the columns of their maps by name."""

from functools import cached_property

from legrad.queries.query import Role
from pipeline.audit.findings import Findings
from pipeline.audit.scores import Population
from pipeline.config import queries_by_label
from pipeline.config.audit_settings import AuditConfig
from pipeline.config.model_settings import CLASSIFIER
from pipeline.errors import UsageError, unknown_name
from pipeline.results.results import Results
from pipeline.schema import OWN_LABEL, map_column


def dataset_name(results: Results) -> str:
    """Alias of the data set, or the URIs of its images if it has none."""
    source = results.run["source"]
    if source.get("alias"):
        return str(source["alias"])
    uris = source["uri"]
    return ",".join(sorted(uris) if isinstance(uris, dict) else map(str, uris))


def check_names(results: Results, settings: AuditConfig) -> None:
    """Raise UsageError if a setting names a query that is not a cue of this run."""
    cues = [q.name for q in results.queries if q.role in (Role.CUE, Role.DECOY)]
    groups = {
        "decoys": settings.decoys,
        "discovered": settings.discovered,
        "thresholds": tuple(settings.thresholds),
    }
    for group, names in groups.items():
        unknown = [name for name in names if name not in cues]
        if unknown:
            raise UsageError(f"{group}: {unknown_name('cue', unknown[0], cues, 'this run')}")


def cues_and_decoys(
    results: Results, settings: AuditConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the cues and of the decoys, by role and by settings.

    Raises:
        UsageError: there are no cues.
    """
    cues = [q.name for q in results.queries if q.role is Role.CUE]
    decoys = [q.name for q in results.queries if q.role is Role.DECOY]
    uri = results.folder.uri
    kinds = {run.manifest["identity"].get("model.kind") for run in results.runs}
    if not cues and kinds == {CLASSIFIER}:
        raise UsageError(
            f"{uri}: this is the run of a classifier, which has classes and no cues. Audit the run "
            "of a vision-language model over the same images together with it:  legrad audit OUT "
            f"--classifier {uri}"
        )
    if not cues:
        raise UsageError(
            f"{uri}: no query has the role cue, so there is nothing to audit. Find cues "
            f"that nobody named:  legrad discover {uri} --write-queries found.yaml  and run "
            "found.yaml"
        )
    real = tuple(name for name in cues if name not in settings.decoys)
    return real, tuple(dict.fromkeys([*decoys, *settings.decoys]))


class Names:
    """Classes, cues and map columns of a run, by name."""

    def __init__(self, results: Results, findings: Findings) -> None:
        self.results = results
        self.findings = findings

    def code(self, cls: str) -> int:
        """Code of a class.

        Raises:
            KeyError: there is no such label, or it is too rare to be audited.
        """
        population = self.findings.population
        code = population.index.get(cls, len(population.classes))
        if code >= population.audited:
            first = ", ".join(population.classes[:8])
            raise KeyError(f"no class {cls!r}; there are {population.audited}: {first} ...")
        return code

    def cue(self, name: str) -> int:
        """Index of a cue; raises KeyError."""
        cues = self.findings.presence.histograms.cues
        if name not in cues:
            raise KeyError(f"no cue {name!r}; there are {', '.join(cues)}")
        return cues.index(name)

    @cached_property
    def class_queries(self) -> dict[str, str]:
        """Label -> name of its class query."""
        return queries_by_label(self.results.queries)

    @cached_property
    def class_maps(self) -> dict[int, str]:
        """Code of a class -> name of the maps of that class on its own images."""
        return class_maps(self.results, self.findings.population)

    def maps_of(self, cls: str | None, query: str) -> str:
        """Name under which the maps of a query are stored for the images of a class.

        Raises:
            KeyError: no such maps are stored.
        """
        if has_maps(self.results, query):
            return query
        own = cls is not None and self.class_queries.get(cls) == query
        if own and _has_own_maps(self.results, self.findings.population):
            return OWN_LABEL
        raise KeyError(f"no maps of {query!r} are stored" + (f" for {cls}" if cls else ""))


def class_maps(results: Results, population: Population) -> dict[int, str]:
    """Code of a class -> name of the maps of that class on its own images."""
    names, queries = {}, queries_by_label(results.queries)
    own = _has_own_maps(results, population)
    for label, code in population.index.items():
        query = queries.get(label)
        if query is not None and has_maps(results, query):
            names[code] = query
        elif query is not None and own:
            names[code] = OWN_LABEL
    return names


def _has_own_maps(results: Results, population: Population) -> bool:
    """Whether ``own_label`` holds the maps of a class on all of its images.

    An image with several labels has the map of one of them there.
    """
    return has_maps(results, OWN_LABEL) and not population.has_sets


def has_maps(results: Results, query: str) -> bool:
    """Whether the results have map columns of a query."""
    return map_column(query) in results.dataset.schema.names
