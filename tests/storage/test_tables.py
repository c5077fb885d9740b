"""Tables of users: the same rules for CSV and Parquet."""

import io
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.storage.tables import parse_columns, read_table, write_table

FRAME = pd.DataFrame({"id": ["a", "007", None], "note": ["x,\ny", "", "NA"], "more": [1, 2, 3]})


def packed(kind: str) -> bytes:
    if kind == "csv":
        return FRAME.to_csv(index=False).encode("utf-8-sig")
    return FRAME.to_parquet()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_cells_are_text_and_empty_ones_null(kind: str) -> None:
    table = parse_columns(packed(kind), "t", ["note", "id"])
    assert table.to_pydict() == {"note": ["x,\ny", None, "NA"], "id": ["a", "007", None]}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_content_says_what_it_is(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(packed(kind))
    frame = read_table(f"{tmp_path}/{name}", ["id", "more"])
    assert frame.to_dict("list") == {"id": ["a", "007", ""], "more": ["1", "2", "3"]}


def test_values_of_any_type_are_text() -> None:
    frame = pd.DataFrame({"flag": [True, False], "day": pd.to_datetime(["2027-06-30"] * 2)})
    buffer = io.BytesIO()
    frame.assign(kind=pd.Categorical(["x", "y"])).to_parquet(buffer)
    table = parse_columns(buffer.getvalue(), "t", ["flag", "day", "kind"]).to_pydict()
    assert table["flag"] == ["true", "false"]
    assert [day[:10] for day in table["day"]] == ["2027-06-30"] * 2
    assert table["kind"] == ["x", "y"]


@pytest.mark.parametrize("data", [b"a,b\n1,2,3\n", b"", b"PAR1 but no more", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^t: "):
        parse_columns(data, "t", ["a"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(encoding: str, delimiter: str) -> None:
    rows = [["key", "label"], ["a", "k\u00e4fer"], ["b", "x"]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    table = parse_columns(text.encode(encoding), "t", ["key", "label"])
    assert table.to_pydict() == {"key": ["a", "b"], "label": ["k\u00e4fer", "x"]}


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UsageError, match=r"'label'.*found key, class"):
        parse_columns(b"key,class\n", "t", ["key", "label"])


def test_only_a_header() -> None:
    assert parse_columns(b"key", "t", ["key"]).num_rows == 0


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_tables_are_written(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"t.{ending}"
    write_table(FRAME[["more"]], str(file))
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[ending]
    assert read(file)["more"].tolist() == [1, 2, 3]
    with pytest.raises(UsageError):
        write_table(FRAME, f"{file}.txt")
