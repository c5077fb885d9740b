"""What a run would do, said without a model."""

from collections import Counter
from pathlib import Path

import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from legrad.queries.query import Query, Role
from pipeline.cluster.preflight import check_source
from pipeline.config import LabelsConfig
from pipeline.dry_run import preview
from pipeline.errors import UsageError
from pipeline.sources.datasource import open_source
from tests.data import hugging_face, jpeg, mini_config, samples, tar_bytes


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "in" / "cat" / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "in" / "cat" / "note.heic").write_text("no image")
    (tmp_path / "in" / "cat" / "0.txt").write_text("a cat")
    config = mini_config({"format": "folder", "uri": str(tmp_path / "in")}, tmp_path / "out")
    found = preview(config, on_cluster=False)
    assert (found.rows, found.exact, found.shards, found.maps) == (6, True, 1, 3)
    assert Counter(row.status for row in found.first) == {"ok": 5, "not_an_image": 1}
    assert "1 .txt" in found.notes[0]
    assert found.first[0].label == "cat"
    assert found.first[0].size == (40, 30)
    assert found.resources is not None
    assert found.resources.actors == 1
    cells = 12 * 12
    assert 6 * 3 * cells * 0.9 < found.bytes_written < 6 * (3 * cells + 600)
    assert not (tmp_path / "out").exists()
    assert preview(config, on_cluster=True).resources is None


def test_rows_of_tars_are_estimated(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for shard in range(3):
        members = samples([f"{n:03d}" for n in range(100)], first_seed=100 * shard)
        (tmp_path / "in" / f"{shard}.tar").write_bytes(tar_bytes(members))
    source = {"format": "webdataset", "uri": str(tmp_path / "in")}
    found = preview(mini_config(source, tmp_path / "out"), on_cluster=False)
    assert not found.exact
    assert 285 < found.rows < 325  # the ends of tars are padded
    limited = preview(
        mini_config(source | {"limit": 7}, tmp_path / "out", runtime={"rows_per_part": 2}),
        on_cluster=False,
    )
    assert limited.rows == 7
    assert (found.costs.puts, limited.costs.puts) == (2, 8)


def test_chosen_rows_of_a_table(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": jpeg(number), "path": None}} for number in range(20)]
    hugging_face(tmp_path / "x.parquet", rows)
    (tmp_path / "only.csv").write_text("image_id\nx.parquet/3\nx.parquet/7\n")
    source = {"format": "parquet", "uri": str(tmp_path / "x.parquet")}
    whole, chosen = (
        preview(mini_config(source | more, tmp_path / "out"), on_cluster=False)
        for more in ({}, {"only": str(tmp_path / "only.csv")})
    )
    assert (whole.rows, whole.exact) == (20, True)
    assert (chosen.rows, chosen.exact) == (2, False)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jpg").write_bytes(jpeg(0))
    source = {"format": "folder", "uri": str(tmp_path / "in")}
    config = mini_config(source, tmp_path / "out", runtime={"gpus_per_actor": 4})
    with pytest.raises(UsageError, match="4 GPUs"):
        preview(config, on_cluster=False)
    model = {"name": "ViT-B-32", "pretrained": "nope"}
    unknown = mini_config(source, tmp_path / "out", model=model)
    with pytest.raises(UsageError, match=r"'nope'.*laion2b_s34b_b79k"):
        preview(unknown, on_cluster=False)


def test_no_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model is loaded")

    for name in ("create_model", "load_checkpoint", "create_model_and_transforms"):
        monkeypatch.setattr(open_clip, name, refuse)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.jpg").write_bytes(jpeg(0))
    source = {"format": "folder", "uri": str(tmp_path / "in")}
    model = {"name": "ViT-B-32", "pretrained": "openai"}
    found = preview(mini_config(source, tmp_path / "out", model=model), on_cluster=False)
    assert (found.rows, found.maps, found.first[0].size) == (1, 3, (40, 30))


def test_labels_of_queries_that_no_image_can_have(tmp_path: Path) -> None:
    for name in ("cat", "Dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "0.jpg").write_bytes(jpeg(0))
    config = mini_config({"format": "folder", "uri": str(tmp_path / "in")}, tmp_path / "out")
    queries = [
        Query(name=name, role=Role.CLASS, label=label)
        for name, label in (("cat", "cat"), ("dog", "dog"))
    ]
    config = config.model_copy(update={"queries": tuple(queries)})
    (note,) = preview(config, on_cluster=False).notes
    assert "dog" in note
    assert "'Dog'" in note
    (tmp_path / "labels.csv").write_text("key,label\n0.jpg,dog\nx,cat\n")
    labels = {"uri": f"{tmp_path}/labels.csv"}
    source = config.source.model_copy(update={"labels": LabelsConfig(**labels)})
    assert not preview(config.model_copy(update={"source": source}), on_cluster=False).notes


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_labels_that_only_the_rows_tell(tmp_path: Path, kind: str) -> None:
    """The labels of a tar are in its members, those of a Parquet file of texts in a column."""
    labels, data = ["cat", "Dog", "cat"], tmp_path / "in"
    data.mkdir()
    if kind == "webdataset":
        members = [(f"{i}.jpg", jpeg(i)) for i in range(3)]
        members += [(f"{i}.cls", label.encode()) for i, label in enumerate(labels)]
        (data / "a.tar").write_bytes(tar_bytes(sorted(members)))
    else:
        hugging_face(
            data / "a.parquet",
            [{"image": {"bytes": jpeg(i)}, "label": label} for i, label in enumerate(labels)],
        )
    queries = [{"name": name, "role": "class", "label": name} for name in ("cat", "dog")]
    config = mini_config({"format": kind, "uri": str(data)}, tmp_path / "o", queries=queries)
    (note,) = preview(config, on_cluster=False).notes
    assert all(text in note for text in ("no image", "dog", "'Dog'"))
    assert "cat (" not in note
    if kind == "webdataset":
        many = [(f"{i:03d}.{end}", jpeg(0) if end == "jpg" else b"cat")
                for i in range(120) for end in ("jpg", "cls")]  # fmt: skip
        (data / "a.tar").write_bytes(tar_bytes(many))
        (note,) = preview(config, on_cluster=False).notes
        assert "100 samples in 1 of 1 shard" in note


def test_maps_of_one_label_of_several_are_told(tmp_path: Path) -> None:
    pictures, sets = [jpeg(0), jpeg(1)], [["fish", "dog"], ["fish"]]
    data = tmp_path / "in"
    data.mkdir()
    pq.write_table(pa.table({"image": pictures, "label": sets}), data / "a.parquet")
    source = {"format": "parquet", "uri": str(data)}
    for maps, notes in (("own_label", 1), ("own_labels", 0), ("all", 0)):
        config = mini_config(source, tmp_path / "out", store={"maps": maps})
        found = preview(config, on_cluster=False).notes
        assert len(found) == notes == len(check_source(open_source(config.source), maps))
        assert all("own_labels" in note for note in found)
