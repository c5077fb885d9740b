"""What the last discovery of a run found, kept beside the run for the report."""

import io
from contextlib import suppress

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.discovery.search import COLUMNS, Discovery
from pipeline.errors import UsageError
from pipeline.results.results import Results

FILE = "discovery.parquet"
_IMAGES = b"images"


def store(results: Results, discovery: Discovery) -> None:
    """Keep the candidates in the run's folder; an output that can only be read stays as it is."""
    table = pa.Table.from_pandas(discovery.candidates, preserve_index=False)
    table = table.replace_schema_metadata({_IMAGES: str(discovery.images)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    with suppress(UsageError):
        results.folder.root.child("_run", FILE).write(buffer.getvalue())


def stored_candidates(results: Results, images: int) -> pd.DataFrame:
    """The candidates of the last discovery.

    Args:
        images: number of labelled images now.

    Returns:
        No rows if there was no discovery, or if the run had another number of images then.
    """
    file = results.folder.root.child("_run", FILE)
    if not file.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    table = pq.read_table(io.BytesIO(file.read()))
    same = (table.schema.metadata or {}).get(_IMAGES) == str(images).encode()
    frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()
    frame = frame.reindex(columns=list(COLUMNS)).fillna({"picture": ""})
    return frame if same else frame.head(0)
