"""Several runs over the same images as one run, for what reads a single run, such as an audit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legrad.queries.query import Query
from pipeline.errors import UsageError
from pipeline.results.joined_rows import JoinedRows
from pipeline.results.results import Results
from pipeline.results.rows import ID, Positions, Rows
from pipeline.results.run import Run
from pipeline.results.streamed import StreamedDataset, in_batches
from pipeline.schema import Status

_STATUS = "status"
_QUERY = "query."


@dataclass(frozen=True, eq=False)
class JoinedRun(Run):
    """Runs of one model over the same images, such as a later one with new queries.

    Folder, manifest and source are those of the first run, which has the labels; its manifest names
    the queries of all.

    Attributes:
        runs: the runs.
    """

    runs: tuple[Run, ...]

    @cached_property
    def dataset(self) -> Any:
        """The images that all runs have; reads as a pyarrow dataset does."""
        return JoinedDataset(self.runs)

    @cached_property
    def rows(self) -> Rows:
        """The rows of the images of any run."""
        return JoinedRows([run.rows for run in self.runs])

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The queries of all runs."""
        return tuple({query.name: query for run in self.runs for query in run.queries}.values())


class JoinedDataset(StreamedDataset):
    """The images of the first run that all others have too, in its order.

    An image that a later run could not explain has that run's status.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        fields: dict[str, pa.Field] = {}
        for run in runs:
            schema = run.dataset.schema
            fields |= {field.name: field for field in schema if field.name not in fields}
        self.schema = pa.schema(list(fields.values()))

    def stream(self, names: Sequence[str], rows: int | None) -> Iterator[pa.RecordBatch]:
        """Some columns in batches; see `StreamedDataset`."""
        first, *others = self._runs
        mine = [name for name in names if name in first.dataset.schema.names]
        rest = [name for name in names if name not in mine]
        wanted, start = list(dict.fromkeys([_STATUS, *mine])), 0
        for batch in in_batches(first.dataset, wanted, rows):
            table = pa.Table.from_batches([batch])
            part, start = slice(start, start + len(batch)), start + len(batch)
            everywhere = np.all([positions[part] >= 0 for positions in self._positions], axis=0)
            table = table.filter(pa.array(everywhere))
            for run, positions in zip(others, self._positions, strict=True):
                of_run = [name for name in rest if name in run.dataset.schema.names]
                table = _joined(table, run, positions[part][everywhere], of_run)
            yield from table.select(list(names)).combine_chunks().to_batches()

    @cached_property
    def _positions(self) -> list[Positions]:
        """For each later run, the place of every image of the first run in it; -1 for none."""
        first, *others = self._runs
        ids = pa.chunked_array(
            [batch[ID] for batch in in_batches(first.dataset, [ID])], pa.string()
        )
        found = [pc.index_in(ids, value_set=run.rows.table([ID])[ID]) for run in others]
        return [indices.fill_null(-1).to_numpy().astype(np.int64) for indices in found]


def _joined(table: pa.Table, run: Run, positions: Positions, columns: Sequence[str]) -> pa.Table:
    """A table with some columns of a later run, whose rows are at these positions."""
    new = [name for name in columns if name not in table.column_names]
    rows = run.rows.take(positions, [_STATUS, *new])
    explained = pc.equal(table[_STATUS], str(Status.OK))
    status = pc.if_else(explained, rows[_STATUS].cast(pa.string()), table[_STATUS])
    table = table.set_column(table.column_names.index(_STATUS), _STATUS, status)
    for name in new:
        table = table.append_column(name, rows[name])
    return table


def as_one(results: Results) -> Results:
    """Results of one run, which stands for all that are open.

    Raises:
        UsageError: the runs used different models or layers, or prepared images differently.
    """
    if len(results.runs) == 1:
        return results
    first, *others = results.runs
    for run in others:
        if _made_by(run) != _made_by(first):
            raise UsageError(
                f"{run.folder.uri} and {first.folder.uri} cannot be joined: another model, other "
                "weights, layers or sizes. Audit each on its own"
            )
    manifest = _with_queries(first.manifest, results.queries, results.runs)
    joined = JoinedRun(first.folder, manifest, first.origin, results.runs)
    return Results((joined,), results.joined)


def _made_by(run: Run) -> tuple[Any, ...]:
    model = run.manifest["metadata"]["model"]
    return model.get("weights_sha256"), model.get("layers"), run.grid, run.preprocess


def _with_queries(
    manifest: Mapping[str, Any], queries: Sequence[Query], runs: Sequence[Run]
) -> dict[str, Any]:
    """The manifest of the first run, with the queries of all."""
    metadata = {**manifest["metadata"], "queries": [q.model_dump(mode="json") for q in queries]}
    identity = {
        key: value
        for run in reversed(runs)
        for key, value in run.manifest["identity"].items()
        if key.startswith(_QUERY)
    }
    return {**manifest, "metadata": metadata, "identity": {**identity, **manifest["identity"]}}
