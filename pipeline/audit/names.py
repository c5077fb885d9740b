"""Names -> places: classes, cues, and the columns that hold their maps."""

from functools import cached_property

from legrad.queries.query import Role
from pipeline.audit.findings import Findings
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.results.results import Results
from pipeline.schema import OWN_LABEL, map_column


def dataset_name(results: Results) -> str:
    """The data set's alias; without one, where its images are."""
    source = results.run["source"]
    if source.get("alias"):
        return str(source["alias"])
    places = source["uri"]
    return ",".join(sorted(places) if isinstance(places, dict) else map(str, places))


def cues_and_decoys(
    results: Results, settings: AuditConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cues, and what the data lack, by role or by settings.

    Raises:
        UsageError: a setting names what is no cue of this run, or there are no cues.
    """
    cues = [q.name for q in results.queries if q.role is Role.CUE]
    fakes = [q.name for q in results.queries if q.role is Role.DECOY]
    groups = {
        "decoys": settings.decoys,
        "discovered": settings.discovered,
        "thresholds": tuple(settings.thresholds),
    }
    for group, names in groups.items():
        strange = [name for name in names if name not in (*cues, *fakes)]
        if strange:
            raise UsageError(
                f"{group}: {strange[0]!r} is no cue of this run; it has "
                f"{', '.join([*cues, *fakes]) or 'none'}"
            )
    if not cues:
        raise UsageError(
            f"{results.folder.uri}: no query has the role cue, so there is nothing to audit"
        )
    real = tuple(name for name in cues if name not in settings.decoys)
    return real, tuple(dict.fromkeys([*fakes, *settings.decoys]))


class Lookup:
    """Places of names in the findings and columns of a run."""

    def __init__(self, results: Results, found: Findings) -> None:
        self.results = results
        self.found = found

    def code(self, cls: str) -> int:
        """Place of a class.

        Raises:
            KeyError: no such label, or too rare to be audited.
        """
        known = self.found.known
        place = known.index.get(cls, len(known.classes))
        if place >= known.audited:
            some = ", ".join(known.classes[:8])
            raise KeyError(f"no class {cls!r}; there are {known.audited}: {some} ...")
        return place

    def cue(self, name: str) -> int:
        """Place of a cue; raises KeyError."""
        cues = self.found.presence.histograms.cues
        if name not in cues:
            raise KeyError(f"no cue {name!r}; there are {', '.join(cues)}")
        return cues.index(name)

    @cached_property
    def queries(self) -> dict[str, str]:
        """Label -> its class query, the first one."""
        named = [(q.label, q.name) for q in self.results.queries if q.role is Role.CLASS]
        return {label: name for label, name in reversed(named) if label}

    @cached_property
    def own_maps(self) -> dict[int, str]:
        """Place of a class -> the column name under which its own images' class maps are."""
        found = {}
        for label, code in self.found.known.index.items():
            query = self.queries.get(label)
            if query is not None and has_maps(self.results, query):
                found[code] = query
            elif query is not None and has_maps(self.results, OWN_LABEL):
                found[code] = OWN_LABEL
        return found

    def maps_of(self, cls: str | None, query: str) -> str:
        """Column name of a query's maps, as they are stored for a class.

        Raises:
            KeyError: they are not.
        """
        if has_maps(self.results, query):
            return query
        if cls is not None and self.queries.get(cls) == query and has_maps(self.results, OWN_LABEL):
            return OWN_LABEL
        raise KeyError(f"no maps of {query!r} are stored" + (f" for {cls}" if cls else ""))


def has_maps(results: Results, query: str) -> bool:
    """Whether a query has columns of maps."""
    return map_column(query) in results.dataset.schema.names
