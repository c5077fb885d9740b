"""The output of schema version 3, with one image that failed, in the tools that people use."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_results

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "v3" / "images"
FILES = str(FOLDER / "*.parquet")
FAILED = "demo/demo-00000.tar/0000006"


@pytest.fixture(scope="module")
def lengths() -> pd.Series:
    """Length of each image's embedding, by pandas."""
    frame = pd.read_parquet(FOLDER, columns=["image_id", "embedding"]).set_index("image_id")
    assert list(frame.index[frame["embedding"].isna()]) == [FAILED]
    return frame["embedding"].dropna().map(np.linalg.norm)


def test_types_that_every_reader_of_parquet_knows() -> None:
    (part,) = FOLDER.iterdir()
    columns = pq.ParquetFile(part).schema
    types = {columns.column(i).path: columns.column(i).physical_type for i in range(len(columns))}
    assert types["embedding.list.element"] == "FLOAT"
    assert types["heatmap__fish"] == "BYTE_ARRAY"
    assert "FIXED_LEN_BYTE_ARRAY" not in types.values()
    encodings = {
        column.path_in_schema: column.encodings
        for column in map(pq.read_metadata(part).row_group(0).column, range(len(columns)))
    }
    assert "RLE_DICTIONARY" in encodings["embedding.list.element"]
    assert not any("BYTE_STREAM_SPLIT" in names for names in encodings.values())


def test_duckdb(lengths: pd.Series) -> None:
    """By the cast to an array; its functions on lists refuse a file with a null list in it."""
    vector = "embedding::float[128]"
    query = f"select image_id, sqrt(array_inner_product({vector}, {vector})) from '{FILES}'"
    norms = dict(duckdb.sql(query).fetchall())
    assert norms.pop(FAILED) is None
    assert norms == pytest.approx(lengths.to_dict())
    assert lengths.to_numpy() == pytest.approx(1, abs=1e-3)


def test_polars(lengths: pd.Series) -> None:
    frame = pl.scan_parquet(FILES).filter(pl.col("status") == "ok").collect()
    assert frame["embedding"].dtype == pl.List(pl.Float32)
    vectors = frame["embedding"].list.to_array(len(frame["embedding"][0])).to_numpy()
    norms = dict(zip(frame["image_id"], np.linalg.norm(vectors, axis=1), strict=True))
    assert norms == pytest.approx(lengths.to_dict())


def test_hugging_face_datasets(
    lengths: pd.Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        "parquet", data_files=FILES, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.num_rows == 12
    explained = rows.filter(lambda status: status == "ok", input_columns="status")
    vectors = explained.with_format("numpy")["embedding"][:]
    norms = dict(zip(explained["image_id"], np.linalg.norm(vectors, axis=1), strict=True))
    assert norms == pytest.approx(lengths.to_dict())


@pytest.mark.skipif(find_spec("chdb") is None, reason="chdb, which is ClickHouse, is not installed")
def test_clickhouse(lengths: pd.Series) -> None:
    import chdb

    norm = "if(empty(embedding), null, L2Norm(arrayMap(v -> assumeNotNull(v), embedding)))"
    query = f"select image_id, {norm} as norm from file('{FILES}', Parquet)"
    frame = chdb.query(query, "DataFrame").set_index("image_id")["norm"]
    assert pd.isna(frame[FAILED])
    assert frame.dropna().to_dict() == pytest.approx(lengths.to_dict())


@pytest.fixture
def spark() -> Iterator[object]:
    """A local session of Spark, which needs Java."""
    sql = pytest.importorskip("pyspark.sql")
    here = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1"}
    try:
        session = sql.SparkSession.builder.master("local[1]").config(map=here).getOrCreate()
    except Exception as error:
        pytest.skip(f"Spark does not start: {error}")
    yield session
    session.stop()


@pytest.mark.starts
def test_spark(lengths: pd.Series, spark) -> None:
    rows = spark.read.parquet(str(FOLDER))
    assert dict(rows.dtypes)["embedding"] == "array<float>"
    assert dict(rows.dtypes)["heatmap__fish"] == "binary"
    norm = "sqrt(aggregate(embedding, 0D, (sum, v) -> sum + v * v))"
    norms = {row[0]: row[1] for row in rows.selectExpr("image_id", norm).collect()}
    assert norms.pop(FAILED) is None
    assert norms == pytest.approx(lengths.to_dict())


def test_an_old_and_a_new_output_as_one(lengths: pd.Series) -> None:
    """Version 2 has the embedding of the image that failed in version 3."""
    v2, v3 = (str(GOLDEN / name) for name in ("v2", "v3"))
    for order in ([v2, v3], [v3, v2]):
        results = open_results(order)
        frame = results.images(["status", "embedding"])
        assert len(frame) == 12
        assert frame["embedding"].map(len).nunique() == 1
        norms = frame["embedding"].map(np.linalg.norm)
        assert norms[lengths.index].to_dict() == pytest.approx(lengths.to_dict(), abs=1e-3)
        by_sql = results.sql("select image_id, embedding from images").set_index("image_id")
        assert by_sql["embedding"].map(len).nunique() == 1
        _, maps = results.maps("fish", [FAILED])
        assert np.isfinite(maps).all()


@pytest.mark.parametrize("version", [2, 3])
def test_types_in_memory_do_not_depend_on_the_version(version: int) -> None:
    results = open_results(str(GOLDEN / f"v{version}"))
    table = results.dataset.to_table()
    assert table.schema.field("embedding").type.value_type == pa.float32()
    assert table.schema.field("heatmap__fish").type == pa.binary(144)
