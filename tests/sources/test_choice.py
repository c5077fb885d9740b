"""limit, sample and shards: fewer images, and always the same ones."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.sources.choice import LabelSample, quotas, wanted_ids
from pipeline.sources.datasource import open_source
from pipeline.sources.keys import Repeats, SameImages, rows_of_part
from pipeline.sources.read_unit import Part
from tests.data import hugging_face, jpeg, read_all, samples, settings, tar_bytes

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """60 images, 30 cats, 20 dogs and 10 owls, in every format."""
    labels = ["cat"] * 30 + ["dog"] * 20 + ["owl"] * 10
    for name in ("tars", "folder", "parquet"):
        (tmp_path / name).mkdir()
    for shard in range(4):
        keys = [f"k{i}" for i in range(15)]
        (tmp_path / "tars" / f"{shard}.tar").write_bytes(tar_bytes(samples(keys)))
    for i, label in enumerate(labels):
        (tmp_path / "folder" / label).mkdir(exist_ok=True)
        (tmp_path / "folder" / label / f"{i}.jpg").write_bytes(jpeg(0))
    for part in range(2):
        rows = [
            {"image": {"bytes": jpeg(i), "path": None}, "label": CLASSES.index(labels[i])}
            for i in range(part, 60, 2)
        ]
        hugging_face(tmp_path / "parquet" / f"{part}.parquet", rows, CLASSES)
    lines = [f"folder/{label}/{i}.jpg,{label}" for i, label in enumerate(labels)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label", *lines]))
    kinds = {"webdataset": "tars", "folder": "folder", "parquet": "parquet", "list": "list.csv"}
    return {kind: f"{tmp_path}/{name}" for kind, name in kinds.items()}


def ids(kind: str, places: dict[str, str], **more: Any) -> list[str]:
    return [row["image_id"] for row in read_all(settings(kind, places[kind], **more))]


KINDS = ["webdataset", "folder", "parquet", "list"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 17, 40, 60, 1000])
def test_a_limit_takes_the_first(places: dict[str, str], kind: str, limit: int) -> None:
    assert ids(kind, places, limit=limit) == ids(kind, places)[:limit]


@pytest.mark.parametrize("kind", ["folder", "parquet", "list"])
def test_a_sample_takes_so_many_of_every_label(places: dict[str, str], kind: str) -> None:
    source = settings(kind, places[kind], sample=12, sample_seed=1)
    rows = read_all(source)
    assert Counter(row["label"] for row in rows) == {"cat": 12, "dog": 12, "owl": 10}
    drawn = [row["image_id"] for row in rows]
    assert drawn == ids(kind, places, sample=12, sample_seed=1)
    assert set(drawn) < set(ids(kind, places))
    assert set(drawn) != set(ids(kind, places, sample=12, sample_seed=2))
    fewer = ids(kind, places, sample=5, sample_seed=1)
    assert set(fewer) < set(drawn)
    assert ids(kind, places, sample=12, sample_seed=1, limit=7) == drawn[:7]


@pytest.mark.parametrize("count", [2, 10, 60, 100])
def test_a_sample_of_tars_is_spread_over_the_shards(places: dict[str, str], count: int) -> None:
    drawn = ids("webdataset", places, sample=count)
    assert drawn == ids("webdataset", places, sample=count)
    assert len(drawn) == len(set(drawn)) == min(count, 60)
    by_shard = Counter(image_id.split("/")[0] for image_id in drawn)
    assert max(by_shard.values()) - min(by_shard.values()) <= 1
    assert ids("webdataset", places, sample=count, limit=1) == drawn[:1]
    opened = open_source(settings("webdataset", places["webdataset"], sample=count))
    assert len(opened.units) == min(count, 4)


def test_a_sample_keeps_the_word_of_a_broken_shard(tmp_path: Path) -> None:
    data = tar_bytes(samples([f"k{i}" for i in range(9)]))
    (tmp_path / "0.tar").write_bytes(data[: len(data) // 2])
    rows = read_all(settings("webdataset", str(tmp_path), sample=2))
    assert [row["status"] for row in rows].count("shard_error") >= 1
    assert rows[-1]["key"] == "#unreadable"


def test_labels_of_a_table_decide_the_sample(places: dict[str, str], tmp_path: Path) -> None:
    names = [row["image_id"] for row in read_all(settings("folder", places["folder"]))]
    lines = [f"{name},{'few' if i < 3 else 'many'}" for i, name in enumerate(names)]
    (tmp_path / "l.csv").write_text("\n".join(["key,label", *lines]))
    labels = {"uri": f"{tmp_path}/l.csv"}
    rows = read_all(settings("folder", places["folder"], sample=5, labels=labels))
    assert Counter(row["label"] for row in rows) == {"few": 3, "many": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_images_of_a_table(places: dict[str, str], tmp_path: Path, kind: str) -> None:
    table = tmp_path / "only.csv"
    every = ids(kind, places)
    for wanted in (every[:1], every[::7], every[40:]):
        table.write_text("more,image_id\n" + "".join(f"x,{name}\n" for name in wanted[::-1]))
        assert ids(kind, places, only=str(table)) == wanted
    read = wanted_ids(settings(kind, places[kind], only=str(table)))
    assert read is not None
    assert read.ids == tuple(sorted(wanted))


def test_only_the_shards_of_a_table_are_read(places: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "only.csv").write_text("image_id\na/2.tar/k4\na/0.tar/k1\na/9.tar/k1\n")
    source = settings(
        "webdataset", places["webdataset"], alias="a", only=str(tmp_path / "only.csv")
    )
    assert [unit.name for unit in open_source(source).units] == ["0.tar", "2.tar"]
    assert [row["image_id"] for row in read_all(source)] == ["a/0.tar/k1", "a/2.tar/k4"]


def test_what_could_not_be_read_stays_beside_the_images_of_a_table(tmp_path: Path) -> None:
    data = tar_bytes(samples([f"k{i}" for i in range(9)]))
    (tmp_path / "0.tar").write_bytes(data[: len(data) // 2])
    (tmp_path / "only.csv").write_text("image_id\n0.tar/k1\n")
    source = settings("webdataset", f"{tmp_path}/*.tar", only=f"{tmp_path}/only.csv")
    assert [row["key"] for row in read_all(source)] == ["k1", "#unreadable"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id\n", "names no image"),
        ("key\nk1\n", "column .image_id."),
        ("image_id\nnowhere.tar/k1\n", "nowhere.tar"),
        (None, "only"),
    ],
)
def test_a_table_of_ids_that_cannot_be_used(
    places: dict[str, str], tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "only.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        open_source(settings("webdataset", places["webdataset"], only=str(tmp_path / "only.csv")))


@pytest.mark.parametrize("other", ["limit", "sample"])
def test_a_table_of_ids_is_the_whole_choice(other: str) -> None:
    with pytest.raises(ValueError, match="sample and limit"):
        settings("webdataset", "x", only="y.csv", **{other: 3})


@pytest.mark.parametrize("pattern", ["[13].tar", "*/[13].tar", "?.tar"])
def test_shards(places: dict[str, str], pattern: str) -> None:
    place = {"a": places["webdataset"]}
    rows = read_all(settings("webdataset", place, shards=pattern))
    assert {row["shard"] for row in rows} == (
        {f"a/{i}.tar" for i in range(4)} if pattern == "?.tar" else {"a/1.tar", "a/3.tar"}
    )


def test_shards_that_match_nothing(places: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"'9\*'.*0\.tar"):
        open_source(settings("webdataset", places["webdataset"], shards="9*"))


def test_a_sample_does_not_depend_on_the_order() -> None:
    offers = [(label, f"{label}{i}", i) for label in "ab" for i in range(50)]
    drawn = []
    for order in (offers, offers[::-1]):
        sample = LabelSample[tuple[str, int]](7, 3)
        for label, image_id, place in order:
            sample.offer(label, image_id, (label, place))
        drawn.append(sample.positions)
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 14


def test_quotas_add_up() -> None:
    names = [f"{i}.tar" for i in range(7)]
    for count in (1, 6, 7, 100):
        found = quotas(names, count, 0)
        assert sum(found) == count
        assert max(found) - min(found) <= 1
    assert quotas(names, 3, 0) != quotas(names, 3, 1)


def test_repeated_keys_of_many_parts_go_to_their_parts() -> None:
    parts = [Part(first, 10, 0) for first in range(0, 1000, 10)]
    repeats = dict.fromkeys(range(0, 1000, 3), 2)
    placed = SameImages(Repeats(repeats)).placed(parts)
    assert {row: n for part in placed for row, n in part.repeats.items()} == repeats
    for part in placed:
        assert all(part.first <= row < part.first + part.rows for row in part.repeats)
        assert list(part.repeats) == rows_of_part(sorted(repeats), part)
