"""What one or several opened runs are: queries, grids, datasets; who has which query."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from legrad.queries.query import Query
from pipeline.errors import UsageError
from pipeline.results.errors import UnknownNameError, unknown
from pipeline.results.joined import FrameRows, JoinedRows
from pipeline.results.map_columns import Maps
from pipeline.results.rows import ID, Rows
from pipeline.results.run import Run
from pipeline.runs.manifest import RunFolder
from pipeline.schema import OWN_LABEL, score_column
from pipeline.sources.fetch import Origin

_BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Opened:
    """Opened runs, seen as one table of images.

    Attributes:
        runs: the runs.
        joined: frames of one's own.
    """

    runs: tuple[Run, ...]
    joined: tuple[FrameRows, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def rows(self) -> Rows:
        """The rows of all runs, by image_id, with the joined columns."""
        own = [run.rows for run in self.runs]
        return own[0] if len(own) == 1 and not self.joined else JoinedRows(own, self.joined)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The queries, in the order of the runs: name, role, prompts, label of each."""
        return tuple({query.name: query for run in self.runs for query in run.queries}.values())

    @property
    def uri(self) -> str:
        """Where the results lie."""
        return " + ".join(run.folder.uri for run in self.runs)

    @property
    def run(self) -> Mapping[str, Any]:
        """The manifest of the run: ``identity`` (all that changes results), ``metadata``, ...

        Raises:
            UsageError: several runs are open; see `runs`, each has its ``manifest``.
        """
        return self._only("run", "manifest").manifest

    @property
    def folder(self) -> RunFolder:
        """The output folder; of several runs, see `runs`."""
        return self._only("folder", "folder").folder

    @property
    def origin(self) -> Origin:
        """Where the images came from; of several runs, see `runs`."""
        return self._only("origin", "origin").origin

    @property
    def dataset(self) -> ds.Dataset:
        """The committed parts as a pyarrow dataset; of several runs, see `runs`."""
        return self._only("dataset", "dataset").dataset

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of every map.

        Raises:
            UsageError: the runs have different grids; see `runs`.
        """
        if len({run.grid for run in self.runs}) == 1:
            return self.runs[0].grid
        return self._only("grid", "grid").grid

    @property
    def preprocess(self) -> Preprocess:
        """How images were brought to the model's input; its `box` places maps on originals."""
        return self._only("preprocess", "preprocess").preprocess

    def run_of(self, query: str) -> Run:
        """The first run that has a query (or ``own_label``).

        Raises:
            KeyError: none has.
        """
        for run in self.runs:
            if run.has(query):
                return run
        raise unknown("query", query, [q.name for q in self.queries], self.uri)

    def batches(self, queries: Sequence[str], columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Tables of some columns with scores and maps of some queries, a few thousand rows each.

        Maps are for `decode`, which knows where they are stored; ``own_label`` is a query here.
        """
        needed = [ID, *columns, *(score_column(name) for name in queries if name != OWN_LABEL)]
        for query in queries:
            needed += self.run_of(query).map_columns([query])
        yield from self.rows.batches(list(dict.fromkeys(needed)), None, _BATCH_ROWS)

    def decode(self, table: pa.Table, query: str) -> Maps:
        """(n, h, w) maps of one query, or of ``own_label``, from a table of `batches`.

        NaN where an image has none.
        """
        return self.run_of(query).decode(table, query)

    def shown(self, table: pa.Table) -> NDArray[Any]:
        """(n, h, w) cells that show the image and not padding, from columns width and height."""
        return self._only("shown", "shown(table)").shown(table)

    def _names(self, names: Sequence[str]) -> list[str]:
        """Names of queries with scores.

        Raises:
            KeyError: one of them is none.
        """
        if isinstance(names, str):
            names = [names]
        known = [query.name for query in self.queries]
        for name in names:
            if name == OWN_LABEL and name not in known:
                raise UnknownNameError(
                    f"{OWN_LABEL} has maps and no score: it stands for each image's own class; ask "
                    "for the scores of the classes"
                )
            if name not in known:
                raise unknown("query", name, known, self.uri)
        return list(names)

    def _runs_of(self, queries: Sequence[str]) -> dict[str, Run]:
        return {query: self.run_of(query) for query in queries}

    def _only(self, what: str, there: str) -> Run:
        if len(self.runs) > 1:
            raise UsageError(
                f"{what}: {len(self.runs)} runs are open as one, and each has its own: "
                f"results.runs[0].{there}"
            )
        return self.runs[0]
