"""Conditions, selections and layouts on small runs, and how many bytes each question reads."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.results import Results
from pipeline.results.answers import overlap
from pipeline.runs.compact import compact
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import parquet_options
from pipeline.schema import output_schema
from tests.parts import METADATA, SCHEMA, earlier_part, ids, make_run, ray_name, row, rows

KEYS = [f"{number:03d}" for number in np.random.default_rng(0).permutation(120)]
FAILED = row("9.tar", "broken") | {"status": "truncated", "error": "ends early"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """241 rows of 2 shards in 7 parts, in no order; one image failed."""
    folder = make_run(tmp_path_factory.mktemp("small") / "it's [one]")
    for number in range(3):
        keys = KEYS[40 * number : 40 * number + 40]
        earlier_part(folder, ray_name(number), rows("ö.tar", keys), "wave-0000")
        earlier_part(folder, ray_name(number + 3), rows("1.tar", keys), "wave-0001")
    earlier_part(folder, ray_name(9), [FAILED], "wave-0001")
    return folder


@pytest.fixture(scope="module")
def large(small: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same rows in one sorted part."""
    place = str(tmp_path_factory.mktemp("large") / "out")
    compact(small.uri, place, partial=True)
    return place


ANSWERS: dict[str, Callable[[Results], pd.DataFrame]] = {
    "images": lambda r: r.images(where="score__cue > 2"),
    "scores": lambda r: r.scores(["cue"], where=pc.field("shard") == "ö.tar"),
    "top": lambda r: r.top("cue", 5, where="key < '100'", columns=["key"]).sort_index(),
    "maps": lambda r: _framed(*r.maps("cue", where="score__cue > 2")),
    "maps by id": lambda r: _framed(*r.maps("cue", [f"1.tar/{key}" for key in KEYS[:30]])),
    "iter_maps": lambda r: pd.concat([_framed(*pair) for pair in r.iter_maps("cue")]),
    "compare": lambda r: r.compare("cue", "cue", where=pc.field("score__cue") > 2),
    "to_long": lambda r: r.to_long(columns=["key", "weight"]).set_index("image_id"),
    "sql": lambda r: r.sql(
        "select image_id, list_sum(decode_map(heatmap__cue, heatmap_max__cue)) s from images"
    ).set_index("image_id"),
}


def _framed(image_ids: np.ndarray, maps: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(maps.reshape(len(maps), -1), index=pd.Index(image_ids, name="image_id"))


@pytest.mark.parametrize("what", ANSWERS)
def test_small_and_large_parts_give_the_same(small: RunFolder, large: str, what: str) -> None:
    of_small, of_large = (ANSWERS[what](open_results(uri)) for uri in (small.uri, large))
    assert len(of_small) > 1
    pd.testing.assert_frame_equal(of_small.sort_index(), of_large.sort_index())


@pytest.mark.parametrize("uri", ["small", "large"])
def test_sql_and_expression_choose_the_same_rows(
    uri: str, small: RunFolder, large: str, request: pytest.FixtureRequest
) -> None:
    results = open_results(small.uri if uri == "small" else large)
    whole = results.images().join(results.scores())
    pairs = (
        ("score__cue > 2.5 and shard = '1.tar'", whole.query("cue > 2.5 and shard == '1.tar'")),
        (
            (pc.field("score__cue") > 2.5) & (pc.field("shard") == "1.tar"),
            whole.query("cue > 2.5 and shard == '1.tar'"),
        ),
        ("key like '01%' -- a remark", whole[whole["key"].str.startswith("01")]),
        (pc.field("key").isin(["007", "119", "x"]), whole[whole["key"].isin(["007", "119"])]),
        (pc.field("status") == "nothing", whole.iloc[:0]),
    )
    for where, expected in pairs:
        assert list(results.images(["key"], where=where).index) == list(expected.index), where
        assert list(results.maps("cue", where=where)[0]) == list(expected.index), where


def _written(place: Path, schema: pa.Schema, some: list[dict[str, Any]], parts: int = 3) -> Results:
    """Rows as a run of several parts."""
    folder = make_run(place)
    Path(folder.images.path).mkdir(parents=True)
    for number in range(parts):
        mine = some[number::parts]
        table = pa.Table.from_pylist(mine, schema=schema)
        pq.write_table(table, f"{folder.images.path}/{ray_name(parts - number)}-0.parquet")
        ids(folder, ray_name(parts - number), mine, "wave-0000")
    return open_results(folder.uri)


@pytest.mark.parametrize(
    "where",
    [
        "score__cue > 2",
        "image_id in (select image_id from images where score__cue > 2)",
        "exists (select 1 from range(3) t(x) where score__cue > 2 and x = 1)",
    ],
)
def test_rows_of_a_condition_come_in_the_order_of_the_files(tmp_path: Path, where: str) -> None:
    many = [f"{number:05d}" for number in np.random.default_rng(1).permutation(6000)]
    results = _written(tmp_path / "out", SCHEMA, rows("1.tar", many))
    if "select image_id" in where:
        listed = tmp_path / "ids.csv"
        results.scores(where="score__cue > 2").sort_values("cue").to_csv(listed)
        where = f"image_id in (select image_id from '{listed}')"
    expected = results.images(["key"], where=pc.field("score__cue") > 2)
    assert 1 < len(expected) < len(many)
    pd.testing.assert_frame_equal(results.images(["key"], where=where), expected)
    assert list(results.maps("cue", where=where)[0]) == list(expected.index)


@pytest.mark.parametrize(
    ("folder", "own"),
    [("shard=3", []), ("out", ["Label"]), ("out", ["filename"]), ("out", ["file_row_number"])],
)
def test_names_that_duckdb_would_take_for_others(
    tmp_path: Path, folder: str, own: list[str]
) -> None:
    """Hive's folders, names that differ in case, columns of its own scan."""
    schema = output_schema(
        dict.fromkeys(own, "string"), ["cue"], embeddings=True, metadata=METADATA
    )
    some = [one | {name: f"{name} of {one['key']}" for name in own} for one in rows("a", KEYS)]
    results = _written(tmp_path / folder, schema, some)
    for names in (["shard", "status", *own], ["shard", "embedding", *own]):
        by_sql, by_expression = (
            results.images(names, where=where)
            for where in ("score__cue > 2 and shard = 'a'", pc.field("score__cue") > 2)
        )
        assert len(by_sql) > 1
        pd.testing.assert_frame_equal(by_sql, by_expression)


def test_maps_in_the_order_asked(small: RunFolder) -> None:
    results = open_results(small.uri)
    asked = ["9.tar/broken", f"ö.tar/{KEYS[5]}", f"1.tar/{KEYS[90]}", f"ö.tar/{KEYS[5]}"]
    found, maps = results.maps("cue", asked)
    assert list(found) == asked
    assert np.isnan(maps[0]).all()
    np.testing.assert_allclose(maps[1:, 0, 0] * 255, [5, 10, 5], rtol=1e-6)
    empty, none = results.maps("cue", [])
    assert (len(empty), none.shape) == (0, (0, 2, 3))
    with pytest.raises(KeyError, match=r"'x'.*1 of 2"):
        results.maps("cue", ["x", asked[1]])


def test_no_image_matches(small: RunFolder) -> None:
    results, nothing = open_results(small.uri), "score__cue > 1e9"
    assert results.maps("cue", where=nothing, normalized=True, size=(8, 12))[1].shape == (0, 8, 12)
    assert list(results.iter_maps("cue", where=nothing)) == []
    assert len(results.to_long(where=nothing)) == len(results.top("cue", where=nothing)) == 0
    for compared in (
        results.compare("cue", "cue", where=nothing),
        results.compare("cue", "cue", image_ids=[]),
    ):
        assert compared.shape == (0, 4)
        assert compared.index.name == "image_id"


def test_shapes_of_maps(small: RunFolder) -> None:
    results = open_results(small.uri)
    _, shown = results.maps("cue", where="status = 'ok'", normalized=True, size=(8, 12))
    assert shown.shape == (240, 8, 12)
    assert not shown.any()  # constant maps
    shapes = [heat.shape[1:] for _, heat in results.iter_maps(["cue"])]
    assert set(shapes) == {(1, 2, 3)}


def test_names_that_are_not_there(small: RunFolder) -> None:
    results = open_results(small.uri)
    with pytest.raises(KeyError, match=r"'cuee'.*'cue'"):
        results.scores(["cuee"])
    with pytest.raises(KeyError, match="'cuee'"):
        results.maps("cuee")
    with pytest.raises(KeyError, match="own_label"):
        results.scores(["own_label"])
    with pytest.raises(UsageError, match=r"labell.*label"):
        results.images(where="labell = 'x'")
    with pytest.raises(KeyError, match=r"'labl'.*'label'"):
        results.images(["labl"])
    column = results.scores()["cue"]
    for where in ("scor > 1", "score__cue >", pc.field("nope") == 1, 3, column > 1):
        with pytest.raises(UsageError, match=r"(?s)where.*SQL condition"):
            results.images(where=where)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="'labl'"):
        results.top("cue", 2, columns=["labl"])
    assert list(results.images("label").columns) == ["label"]
    with pytest.raises(UsageError, match="iter_maps"):
        results.maps(["cue"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 x 3"):
        results.maps("cue", size=2)
    with pytest.raises(UsageError, match="cue"):
        next(results.iter_maps(["cue", "cue"]))
    with pytest.raises(UsageError, match=re.escape(small.uri) + "$"):
        open_results(small.images.path)
    with pytest.raises(UsageError, match="image_ids and where"):
        results.maps("cue", ["x"], where="key = '1'")
    for wrong in ("score__cue > 1", pc.field("score__cue") > 1, results.scores()):
        with pytest.raises(UsageError, match=r"where=.*\.index"):
            results.maps("cue", wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"(?s)pictures.*images"):
        results.sql("select * from pictures")


@pytest.mark.parametrize(
    "ask",
    [
        lambda r, of: r.images(of("key")),
        lambda r, of: r.scores(of("cue")),
        lambda r, of: r.top("cue", 3, columns=of("key")),
        lambda r, of: r.to_long(columns=of("key")),
        lambda r, of: r.to_long(of("cue")),
        lambda r, of: pa.concat_tables(r.batches(of("cue"), of("key"))).to_pandas(),
    ],
)
def test_one_name_may_be_text(small: RunFolder, ask: Callable[..., pd.DataFrame]) -> None:
    results = open_results(small.uri)
    as_text, as_list = ask(results, str), ask(results, lambda name: [name])
    assert len(as_text)
    pd.testing.assert_frame_equal(as_text, as_list)


def test_it_shows_itself(small: RunFolder) -> None:
    results = open_results(small.uri)
    page = results._repr_html_()
    assert "241" in page
    assert "a cue" in page
    assert "&#x27;s [one]" in page


def test_frames_of_plain_pandas(small: RunFolder) -> None:
    frame = pd.read_parquet(small.images.path).set_index("image_id")
    _, maps = open_results(small.uri).maps("cue", list(frame.index))
    np.testing.assert_array_equal(frame.legrad.maps("cue", grid=(2, 3)), maps)
    assert frame.legrad.queries == ["cue"]
    assert list(frame.legrad.scores.columns) == ["cue"]
    with pytest.raises(ValueError, match="6"):
        frame.legrad.maps("cue")
    with pytest.raises(KeyError, match="heatmap__x"):
        frame.legrad.maps("x")
    with pytest.raises(AttributeError, match="score__"):
        _ = frame[["key"]].legrad


def test_overlap_by_hand() -> None:
    a = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 1]], [[2, 1], [1, 0]], [[0, 0], [0, 0]]], float)
    b = np.array([[[0, 0], [0, 2]], [[3, 3], [3, 3]], [[2, 1], [1, 0]], [[1, 0], [0, 0]]], float)
    found = overlap(a, b)
    np.testing.assert_allclose(found["cosine"], [0, 1, 1, np.nan])
    np.testing.assert_allclose(found["soft_iou"], [0, 1, 1, np.nan])
    np.testing.assert_allclose(found["shared_mass"], [0, 1, 1, np.nan])
    np.testing.assert_allclose(found["pearson"], [-1 / 3, np.nan, 1, np.nan])
    shown = np.array([[[True, False], [True, True]]])
    half = overlap(a[2:3], np.array([[[1, 7], [1, 0]]]), shown)
    np.testing.assert_allclose(half["shared_mass"], 1 / 3 + 1 / 2)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """30,000 sorted rows in row groups of 5,000, with maps that do not compress."""
    folder = make_run(tmp_path_factory.mktemp("wide") / "out")
    rng, n = np.random.default_rng(0), 30_000
    schema = output_schema({}, ["cue"], embeddings=False, metadata=METADATA)
    columns = {
        "image_id": pa.array([f"{i:06d}" for i in range(n)]),
        "status": pa.array(["ok"] * n),
        "score__cue": pa.array(np.arange(n, dtype=np.float32)),
        "heatmap__cue": pa.array([rng.bytes(64) for _ in range(n)]),
        "heatmap_max__cue": pa.array(np.ones(n, np.float32)),
    }
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in schema]
    place = Path(folder.images.path)
    place.mkdir(parents=True)
    options = parquet_options(schema)
    table = pa.table(arrays, schema=schema)
    pq.write_table(table, place / f"{ray_name(0)}-0.parquet", row_group_size=5_000, **options)
    ids(folder, ray_name(0), [{"image_id": "000000"}])
    manifest = folder.manifest.read().replace(b'"grid": [2, 3]', b'"grid": [8, 8]')
    folder.manifest.write(manifest)
    results = open_results(folder.uri)
    len(results)
    return results


def bytes_read() -> int:
    """By system calls of this process so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


@pytest.fixture
def reading() -> Callable[[Callable[[], object]], int]:
    def count(work: Callable[[], object]) -> int:
        work()  # libraries read their own files the first time
        before = bytes_read()
        work()
        return bytes_read() - before

    return count


GROUP = 5_000 * 64
"""Bytes of a row group's maps."""


@pytest.mark.parametrize("where", ["score__cue >= 28000", pc.field("score__cue") >= 28_000])
def test_conditions_are_pushed_down(
    wide: Results, where: pc.Expression | str, reading: Callable[[Callable[[], object]], int]
) -> None:
    assert len(wide.maps("cue", where=where)[0]) == 2_000
    every = reading(lambda: wide.maps("cue"))
    assert every > 6 * GROUP
    some = reading(lambda: wide.maps("cue", where=where))
    assert GROUP < some < 2 * GROUP
    streamed = reading(lambda: list(wide.iter_maps("cue", where=where)))
    assert GROUP < streamed < 2 * GROUP
    assert reading(lambda: wide.scores(where=where)) < GROUP


def test_only_what_is_asked_for_is_read(
    wide: Results, reading: Callable[[Callable[[], object]], int]
) -> None:
    few = ["000001", "004999", "029000"]
    assert 2 * GROUP < reading(lambda: wide.maps("cue", few)) < 3 * GROUP
    assert reading(lambda: wide.scores(["cue"])) < GROUP
    assert reading(lambda: wide.top("cue", 100)) < GROUP
    assert list(wide.top("cue", 2).index) == ["029999", "029998"]
