"""Tables of results as pandas frames."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from legrad.queries.query import Query
from pipeline.results.rows import ID, Rows, Where
from pipeline.results.run import Run
from pipeline.schema import EMBEDDING, map_column, score_column

_HIDDEN = ("score__", "heatmap__", "heatmap_max__", EMBEDDING)


def indexed(table: pa.Table) -> pd.DataFrame:
    """A table as a frame by image_id."""
    frame: pd.DataFrame = table.to_pandas()
    return frame.set_index(ID)


def images(rows: Rows, columns: Sequence[str] | None, where: Where) -> pd.DataFrame:
    """One row an image: all but scores, maps and embeddings, or some columns."""
    if columns is None:
        columns = [name for name in rows.schema.names if not name.startswith(_HIDDEN)]
    if isinstance(columns, str):
        columns = [columns]
    return indexed(rows.table(list(dict.fromkeys([ID, *columns])), where))


def scores(rows: Rows, names: Sequence[str], where: Where) -> pd.DataFrame:
    """One column a query."""
    columns = [score_column(name) for name in names]
    table = rows.table([ID, *dict.fromkeys(columns)], where)
    return indexed(table).reindex(columns=columns).set_axis(list(names), axis=1)


def top(rows: Rows, query: str, n: int, columns: Sequence[str], where: Where) -> pd.DataFrame:
    """The n highest scores of a query with some columns beside them."""
    column = score_column(query)
    if isinstance(columns, str):
        columns = [columns]
    wanted = list(dict.fromkeys([ID, *columns, column]))
    return indexed(rows.largest(column, n, wanted, where)).rename(columns={column: "score"})


def to_long(
    rows: Rows,
    asked: Sequence[tuple[Run, Query]],
    columns: Sequence[str],
    where: Where,
) -> pd.DataFrame:
    """One row an (image, query): image_id, some columns, query, role, score, heatmap_max."""
    needed = [ID, *columns]
    for run, query in asked:
        needed.append(score_column(query.name))
        needed += [
            name for name in run.map_columns([query.name]) if not name.startswith(map_column(""))
        ]
    table = rows.table(list(dict.fromkeys(needed)), where)
    count = table.num_rows
    names = [query.name for _, query in asked]
    ids = table.select(list(dict.fromkeys([ID, *columns]))).to_pandas()
    long = pd.concat([ids] * len(asked), ignore_index=True) if asked else ids.iloc[:0].copy()
    repeated = np.repeat(np.arange(len(asked)), count)
    long["query"] = pd.Categorical.from_codes(repeated, pd.Index(names))
    long["role"] = pd.Categorical([str(query.role) for _, query in asked])[repeated]
    long["score"] = _stacked([table[score_column(name)].to_numpy() for name in names])
    long["heatmap_max"] = _stacked([run.peaks(table, query.name) for run, query in asked])
    frame: pd.DataFrame = long
    return frame


def _stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *columns]).astype(np.float32)
