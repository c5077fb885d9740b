"""One or several opened runs, seen as one table: queries, grids, data sets, joined frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from legrad.queries.query import Query
from pipeline.errors import UnknownNameError, UsageError, unknown_name
from pipeline.results.decoding import Maps
from pipeline.results.joined_rows import FrameRows, JoinedRows
from pipeline.results.rows import ID, Rows, name_list
from pipeline.results.run import Run
from pipeline.runs.manifest import RunFolder
from pipeline.schema import STAND_INS, score_column
from pipeline.sources.fetch import Origin

_BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Opened:
    """Opened runs, seen as one table of images.

    Attributes:
        runs: the runs.
        joined: the user's own frames, see `join`.
    """

    runs: tuple[Run, ...]
    joined: tuple[FrameRows, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def rows(self) -> Rows:
        """The rows of all runs, by image_id, with the joined columns."""
        of_runs = [run.rows for run in self.runs]
        if len(of_runs) == 1 and not self.joined:
            return of_runs[0]
        return JoinedRows(of_runs, self.joined)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The queries (name, role, prompts, label) of all runs, in configuration order."""
        return tuple({query.name: query for run in self.runs for query in run.queries}.values())

    @property
    def uri(self) -> str:
        """The URIs of the output folders."""
        return " + ".join(run.folder.uri for run in self.runs)

    @property
    def run(self) -> Mapping[str, Any]:
        """The manifest of the run: ``identity`` (all that changes results), ``metadata``, ...

        Raises:
            UsageError: several runs are open; see `runs`, each has its ``manifest``.
        """
        return self._single("run", "manifest").manifest

    @property
    def folder(self) -> RunFolder:
        """The output folder; of several runs, see `runs`."""
        return self._single("folder", "folder").folder

    @property
    def origin(self) -> Origin:
        """Where the images came from; of several runs, see `runs`."""
        return self._single("origin", "origin").origin

    @property
    def dataset(self) -> ds.Dataset:
        """The committed parts as a pyarrow dataset; of several runs, see `runs`."""
        return self._single("dataset", "dataset").dataset

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of every map.

        Raises:
            UsageError: the runs have different grids; see `runs`.
        """
        if len({run.grid for run in self.runs}) == 1:
            return self.runs[0].grid
        return self._single("grid", "grid").grid

    @property
    def preprocess(self) -> Preprocess:
        """How images were resized for the model; its `box` gives the part that a map covers.

        Raises:
            UsageError: the runs resize differently; see `runs`, and `run_of` for one query.
        """
        if all(run.preprocess == self.runs[0].preprocess for run in self.runs):
            return self.runs[0].preprocess
        return self._single("preprocess", "preprocess").preprocess

    def join(self, frame: pd.DataFrame | pd.Series) -> Self:
        """These results with further columns, by image_id (the frame's index or a column).

        They are then columns like any other, in `images`, in conditions and in SQL. Images that the
        frame does not have get nulls; images that only the frame has are left out.

        Example::

            mine = results.join(pd.read_csv("splits.csv"))    # columns image_id, split
            mine.scores(["leash"], where="split = 'test'")

        Raises:
            UsageError: the frame has no image_id, none that is in the results, a repeated one, or
                a column that the results have already.
        """
        added = FrameRows(frame)
        added.require_some_of(self.rows)
        same = set(added.schema.names) & set(self.rows.schema.names) - {ID}
        if same:
            raise UsageError(f"join: {sorted(same)} are columns already; rename them in the frame")
        return replace(self, joined=(*self.joined, added))

    def run_of(self, query: str) -> Run:
        """The first run that has a query (or ``own_label``, or ``predicted``).

        Raises:
            KeyError: none has.
        """
        for run in self.runs:
            if run.has(query):
                return run
        raise unknown_name("query", query, [q.name for q in self.queries], self.uri)

    def batches(
        self, queries: str | Sequence[str], columns: str | Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """Tables of a few thousand rows with some columns and some queries' scores and maps.

        `decode` turns the columns of maps into maps. ``own_label`` and ``predicted`` are queries
        here.
        """
        names = name_list(queries)
        needed = [ID, *name_list(columns)]
        scored = {query.name for query in self.queries}
        needed += [score_column(name) for name in names if name in scored]
        for query in names:
            needed += self.run_of(query).map_columns([query])
        yield from self.rows.batches(list(dict.fromkeys(needed)), None, _BATCH_ROWS)

    def decode(self, table: pa.Table, query: str) -> Maps:
        """(n, h, w) maps of a query, ``own_label`` or ``predicted``, from a table of `batches`.

        NaN where an image has none.
        """
        return self.run_of(query).decode(table, query)

    def shown(self, table: pa.Table) -> NDArray[Any]:
        """(n, h, w) cells that show the image and not padding, from columns width and height."""
        return self._single("shown", "shown(table)").shown(table)

    def _names(self, names: str | Sequence[str] | None) -> list[str]:
        """Names of queries that have scores; None stands for all.

        Raises:
            KeyError: a name is not that of a query, or is one of `STAND_INS`, which have no scores.
        """
        existing = [query.name for query in self.queries]
        requested = existing if names is None else name_list(names)
        for name in requested:
            if name in STAND_INS and name not in existing:
                raise UnknownNameError(
                    f"{name} has maps but no scores, because it stands for another class in each "
                    "image; ask for the scores of the classes"
                )
            if name not in existing:
                raise unknown_name("query", name, existing, self.uri)
        return requested

    def _runs_of(self, queries: Sequence[str]) -> dict[str, Run]:
        return {query: self.run_of(query) for query in queries}

    def _single(self, what: str, attribute: str) -> Run:
        if len(self.runs) > 1:
            raise UsageError(
                f"{what}: {len(self.runs)} runs are open as one, and each has its own: "
                f"results.runs[0].{attribute}"
            )
        return self.runs[0]
