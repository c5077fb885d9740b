"""The starter configuration: what is found, how it is named, and that it passes its own check."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from legrad.queries.query import Query, Role
from pipeline.config import MAX_QUERIES, ModelConfig
from pipeline.config.loading import load_config
from pipeline.config.query_labels import class_queries
from pipeline.errors import UsageError
from pipeline.sources import label_checks
from pipeline.starter.files import Starter, write_starter
from tests.data import jpeg, samples, tar_bytes

MODEL = ModelConfig(name="ViT-B-32", pretrained="laion2b_s34b_b79k")
PICTURE = jpeg(0)


def folder(place: Path, counts: dict[str, int]) -> Path:
    """Pictures in folders of classes."""
    for label, count in counts.items():
        (place / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / label / f"{number}.jpg").write_bytes(PICTURE)
    return place


def start(data: Path | str, config: Path, model: ModelConfig = MODEL) -> Starter:
    return write_starter(str(data), model, config)


def classes_of(config: Path) -> list[Query]:
    return [q for q in load_config(config).queries if q.role is Role.CLASS]


def test_a_folder_of_classes(tmp_path: Path) -> None:
    data = folder(tmp_path / "photos", {"golden_retriever": 3, "Fresh Fish": 2, "no": 1})
    (data / "readme.txt").write_text("x")
    (data / "loose.png").write_bytes(PICTURE)
    done = start(data, tmp_path / "run.yaml")
    config = load_config(tmp_path / "run.yaml")
    assert config.source.format == "folder"
    assert config.source.uri == (str(data),)
    assert config.output == str(tmp_path / "heatmaps")
    assert config.model == MODEL
    found = {q.label: (q.name, q.prompts, q.templates) for q in classes_of(done.config)}
    assert found == {
        "golden_retriever": ("golden_retriever", ("golden retriever",), "imagenet"),
        "Fresh Fish": ("fresh_fish", ("Fresh Fish",), "imagenet"),
        "no": ("no", ("no",), "imagenet"),
    }
    roles = [query.role for query in config.queries]
    assert done.classes == 3
    assert done.cues == roles.count(Role.CUE) > 20
    assert done.decoys == roles.count(Role.DECOY) > 5
    assert roles.count(Role.BASELINE) == 2
    assert any("1 .txt" in note for note in done.notes)
    text = (tmp_path / "run.yaml").read_text()
    assert "uri: photos" in text
    assert "7 image files, 3 classes" in text
    assert "# 3 images" in done.queries.read_text()


def test_shards_are_sampled_for_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "shards"
    data.mkdir()
    for number in range(7):
        members = samples([f"{number}-{i}" for i in range(4)])
        members.append((f"{number}-bare.jpg", PICTURE))
        (data / f"{number}.tar").write_bytes(tar_bytes(members))
    done = start(data / "{0..6}.tar", tmp_path / "run.yaml")
    assert {q.label for q in classes_of(done.config)} == {"label 0", "label 1", "label 2"}
    assert done.survey.format == "webdataset"
    assert done.survey.labels["label 0"] == 14
    assert not any("labels are those of" in note for note in done.notes)
    assert any("7 of 35" in note for note in done.notes)
    assert "label_field" in done.config.read_text()
    monkeypatch.setattr(label_checks, "_LOCAL_SAMPLES", 4)
    done = start(data / "{0..6}.tar", tmp_path / "some" / "run.yaml")
    assert any("28 samples in 7 of 7 shards" in note for note in done.notes)


def test_parquet_brings_the_names_of_its_labels(tmp_path: Path) -> None:
    feature = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["ant", "bee"]},
    }
    meta = {b"huggingface": json.dumps({"info": {"features": feature}}).encode()}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        pictures = pa.array([{"bytes": PICTURE, "path": None}] * 4, kind)
        table = pa.table({"image": pictures, "label": pa.array([0, 1, 1, None])})
        pq.write_table(table.replace_schema_metadata(meta), data / f"{number}.parquet")
    done = start(data, tmp_path / "run.yaml")
    assert {q.label for q in classes_of(done.config)} == {"ant", "bee"}
    assert done.survey.labels == {"bee": 4, "ant": 2}
    assert "format: parquet" in done.config.read_text()
    assert any("2 of 8" in note for note in done.notes)
    pq.write_table(pa.table({"text": ["x"]}), data / "0.parquet")
    with pytest.raises(UsageError, match="image_field"):
        start(data, tmp_path / "other" / "run.yaml")


def test_labels_without_words_are_left_to_the_user(tmp_path: Path) -> None:
    members = []
    for number in range(5):
        members.append((f"{number}.jpg", PICTURE))
        members.append((f"{number}.cls", str(number).encode()))
        members.append((f"{number}.json", json.dumps({"size": 1}).encode()))
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    done = start(tmp_path / "a.tar", tmp_path / "run.yaml")
    assert [q.label for q in classes_of(done.config)] == ["0", "1", "2", "3", "4"]
    assert [q.name for q in classes_of(done.config)][3] == "class_3"
    assert done.queries.read_text().count("say what this is") == 5
    assert any("0, 1, 2 and 2 more" in note for note in done.notes)


def test_more_labels_than_a_run_holds(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", {f"kind {i}": 2 if i % 3 else 1 for i in range(300)})
    done = start(data, tmp_path / "run.yaml")
    queries = load_config(done.config).queries
    assert len(queries) == MAX_QUERIES
    kept = {q.label for q in queries if q.role is Role.CLASS}
    rare = {f"kind {i}" for i in range(0, 300, 3)}
    frequent = {f"kind {i}" for i in range(300)} - rare
    assert frequent <= kept
    assert any("300 labels" in note and "most frequent" in note for note in done.notes)


def test_places_joined_in_one_text_become_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(samples([f"{name}1"])))
    monkeypatch.chdir(tmp_path)
    done = start("a.tar::b.tar", tmp_path / "c" / "run.yaml")
    assert sum(done.survey.labels.values()) == 2
    assert load_config(done.config).source.uri == (f"{tmp_path}/a.tar", f"{tmp_path}/b.tar")
    with pytest.raises(UsageError, match="pipe:"):
        start("pipe:cat a.tar", tmp_path / "d" / "run.yaml")


def test_a_class_that_is_a_starter_cue_replaces_it(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", {"tree": 1, "Person": 1, "a photo": 1, "own_label": 1, "key": 1})
    done = start(data, tmp_path / "run.yaml")
    named = {q.name: q.role for q in load_config(done.config).queries}
    assert named["tree"] is named["person"] is named["a_photo"] is Role.CLASS
    assert {"own_label_2", "key_2"} <= set(named)
    assert "sky" in named
    assert any("tree" in note and "person" in note for note in done.notes)


def test_pictures_without_classes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "one.jpg").write_bytes(PICTURE)
    done = start(tmp_path / "d", tmp_path / "run.yaml")
    assert not classes_of(done.config)
    assert "# - {name: dog, role: class" in done.queries.read_text()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["a", "A", "a!"], ["a", "a_2", "a_3"]),
        (["x" * 60, "x" * 60 + "y"], ["x" * 48, "x" * 46 + "_2"]),
        (["\u00c4rger", "\u72ac", "..."], ["arger", "class", "class_2"]),
        (["001.Black_footed_Tern", "n02085620-Chihuahua"], ["black_footed_tern", "chihuahua"]),
        (["3", "n01440764", "7 up", "4x4"], ["class_3", "class_n01440764", "up", "class_4x4"]),
        (["taken", "taken_2"], ["taken_2", "taken_2_2"]),
    ],
)
def test_names(labels: list[str], names: list[str]) -> None:
    found = class_queries(labels, {"taken"})
    assert [query.name for query in found] == names
    for query in found:
        assert Query(name=query.name, role=Role.CLASS, label=query.label).name == query.name
        assert query.text.strip()


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", {"a": 1})
    (tmp_path / "queries.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"queries\.yaml: .*--force"):
        start(data, tmp_path / "run.yaml")
    assert not (tmp_path / "run.yaml").exists()
    assert (tmp_path / "queries.yaml").read_text() == "mine"
    write_starter(str(data), MODEL, tmp_path / "run.yaml", force=True)
    assert yaml.safe_load((tmp_path / "queries.yaml").read_text())["queries"]


def test_two_configurations_in_one_folder_share_nothing(tmp_path: Path) -> None:
    first = start(folder(tmp_path / "a", {"ant": 1}), tmp_path / "run.yaml")
    mine = first.queries.read_text()
    other = start(folder(tmp_path / "b", {"bee": 1}), tmp_path / "my b.yaml")
    assert first.queries.read_text() == mine
    assert [query.label for query in classes_of(other.config)] == ["bee"]
    assert load_config(other.config).output != load_config(first.config).output
    assert other.queries.parent == tmp_path


def test_what_the_user_can_mend(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", {"a": 1})
    with pytest.raises(UsageError, match="-o "):
        start(data, data / "run.yaml")
    with pytest.raises(UsageError, match="absent"):
        start(tmp_path / "absent", tmp_path / "run.yaml")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="txt"):
        start(tmp_path / "texts", tmp_path / "run.yaml")
    absent = ModelConfig(name="ViT-B-32", pretrained="w.safetensors")
    with pytest.raises(UsageError, match=r"--pretrained w\.safetensors"):
        start(data, tmp_path / "run.yaml", absent)
    assert not list(tmp_path.glob("*.yaml"))


def test_a_weights_file_is_written_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "d", {"a": 1})
    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    model = ModelConfig(name="ViT-B-32", pretrained="w.safetensors", layers=4, resize="center_crop")
    done = start(data, Path("elsewhere/run.yaml"), model)
    config = load_config(done.config)
    assert config.model.pretrained == str(tmp_path / "w.safetensors")
    assert (config.model.layers, config.model.resize) == (4, "center_crop")
    assert config.source.uri == (str(data),)
    assert config.output == str(tmp_path / "elsewhere" / "heatmaps")


def test_fields_that_the_user_names(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "l.csv").write_text("image,kind,label\na.jpg,ant,x\n")
    done = write_starter(f"{tmp_path}/l.csv", MODEL, tmp_path / "run.yaml", {"label_field": "kind"})
    assert done.survey.columns == {"image": "image", "label": "kind"}
    assert load_config(done.config).source.label_field == "kind"
    assert [query.label for query in classes_of(done.config)] == ["ant"]


def test_a_list_of_another_kind_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"image": "a.jpg"}]')
    with pytest.raises(UsageError, match="read_json"):
        start(tmp_path / "list.json", tmp_path / "run.yaml")


def test_nothing_half_made_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "d", {"a": 1})
    with pytest.raises(UsageError, match=r"queries\.yaml"):
        start(data, tmp_path / "queries.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.yaml.draft").mkdir()  # a file that cannot be written
    with pytest.raises(UsageError, match="cannot be written"):
        start(data, tmp_path / "run" / "run.yaml")
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_table_of_labels_that_a_run_refuses_is_left_out_and_told(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", {"a": 2})
    (data / "labels.csv").write_text("id,label\n0,x\n1,y\n0,z\n")
    done = start(data, tmp_path / "run.yaml")
    assert load_config(done.config).source.labels is None
    assert done.survey.labels == {"a": 2}
    assert any("two labels" in note for note in done.notes)


def test_a_pattern_stays_as_it_is(tmp_path: Path) -> None:
    data = folder(tmp_path / "d" / "train", {"a": 1, "b": 2})
    (tmp_path / "d" / "train" / "labels.csv").write_text("id,label\n0,x\n1,y\n")
    done = start(f"{data}/*/*.jpg", tmp_path / "run.yaml")
    assert done.survey.labels == {"a": 1, "b": 2}
    assert load_config(done.config).source.uri == (f"{data}/*/*.jpg",)


def test_a_list_whose_images_are_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image,label\ngone.jpg,x\n")
    done = start(tmp_path / "l.csv", tmp_path / "run" / "run.yaml")
    assert load_config(done.config).source.image_root is None
    assert any("gone.jpg" in note and "image_root" in note for note in done.notes)
