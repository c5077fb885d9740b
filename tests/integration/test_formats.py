"""The whole flow on Parquet and on a list: what goes in comes out and is found again."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import Results, flow, open_results
from pipeline.errors import UsageError
from tests.data import CLASSES_AND_CUES, hugging_face, jpeg, mini_config, picture
from tests.in_process import run
from tests.jobs.command import legrad
from tests.web import web_server

LABELS = ("cat", "dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same twelve images in a Parquet file and in a list; one of each is broken."""
    (tmp_path / "images").mkdir()
    rows: list[dict[str, Any]] = []
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["uri", "kind", "year"])
        for i in range(12):
            data = b"no image" if i == 5 else jpeg(i)
            (tmp_path / "images" / f"{i}.jpg").write_bytes(data)
            writer.writerow([f"images/{i}.jpg", LABELS[i % 2], 2000 + i])
            image = {"bytes": data, "path": f"{i}.jpg"}
            rows.append({"image": image, "label": i % 2, "year": 2000 + i})
    (tmp_path / "data").mkdir()
    hugging_face(tmp_path / "data" / "train.parquet", rows, LABELS)
    return tmp_path


def sources(folder: Path) -> dict[str, dict[str, Any]]:
    carry = {"year": "int"}
    return {
        "parquet": {"format": "parquet", "uri": f"{folder}/data", "alias": "p", "carry": carry},
        "list": {
            "format": "list",
            "uri": {"l": f"{folder}/list.csv"},
            "label_field": "kind",
            "carry": carry,
        },
    }


def assert_images_are_found_again(results: Results, rows: int) -> None:
    images = results.images().sort_values("year")
    assert images["label"].tolist() == [LABELS[number % 2] for number in range(rows)]
    assert images["year"].tolist() == list(range(2000, 2000 + rows))
    assert images["status"].tolist()[5] == "not_an_image"
    for number in (0, 4, rows - 1):
        original = results.image(images.index[number])
        assert original.size == picture(number).size
        assert original.tobytes() == _upright(jpeg(number))
    assert results.overlay(images.index[0], "watermark").size == original.size


def test_parquet_from_the_source_to_the_overlay(folder: Path) -> None:
    summary = run(mini_config(sources(folder)["parquet"], folder / "out"))
    assert summary.statuses == {"ok": 11, "not_an_image": 1}
    assert_images_are_found_again(open_results(str(folder / "out")), 12)


def test_the_first_rows_of_a_list(folder: Path) -> None:
    source = sources(folder)["list"]
    summary = run(mini_config(source | {"limit": 11}, folder / "out"))
    assert summary.statuses == {"ok": 10, "not_an_image": 1}
    assert_images_are_found_again(open_results(str(folder / "out")), 11)
    with pytest.raises(UsageError, match=r"source\.limit.*11.*3"):
        run(mini_config(source | {"limit": 3}, folder / "out"))


def test_labels_beside_images_behind_a_secret(folder: Path) -> None:
    """A table of labels replaces the file's own; no file of the output holds the secret."""
    table = folder / "labels.csv"
    table.write_text("\n".join(["key,label", *(f"{i},class {i % 3}" for i in range(9))]))
    token = "X-Signature=s3cr3t"
    output = folder / "out"
    with web_server(folder / "data", token=token) as address:
        uri = f"http://user:passw0rd@{address}/train.parquet?{token}"
        config = mini_config(
            {"format": "parquet", "uri": uri, "labels": {"uri": str(table)}}, output
        )
        summary = run(config)
        assert summary.rows == 12
        assert any("3 of 12 images have no label" in note for note in summary.notes)
        with pytest.raises(UsageError):
            open_results(str(output)).image("train.parquet/0")
        moved = open_results(str(output), source=uri)
        assert moved.image("train.parquet/0").size == picture(0).size
        table.write_text(table.read_text().replace("class 1", "other"))
        with pytest.raises(UsageError, match=r"source\.labels"):
            run(config)
    labels = open_results(str(output)).images()["label"]
    assert labels["train.parquet/4"] == "class 1"
    assert labels.isna().sum() == 3
    manifest = json.loads((output / "_run" / "manifest.json").read_text())
    assert manifest["source"]["uri"] == [f"http://{address}/train.parquet"]
    for path in output.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"s3cr3t" not in data, path
            assert b"passw0rd" not in data, path


def test_options_of_the_command(folder: Path) -> None:
    data = {
        "model": {"name": "mini"},
        "source": sources(folder)["parquet"],
        "queries": list(CLASSES_AND_CUES),
        "output": "out",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(data))
    done = legrad("run", "run.yaml", "--shards", "test*", cwd=folder)
    assert done.returncode == 2
    assert "none of 1 files matches 'test*'" in done.stderr


def _upright(data: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").tobytes()


def test_a_library_that_cannot_be_loaded_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported in a thread; importing half of torch again would tell something else."""

    def fails(name: str) -> None:
        raise ImportError(f"{name}: libcudart.so.13 is missing")

    monkeypatch.setattr(flow, "import_module", fails)
    with pytest.raises(ImportError, match="libcudart"):
        run(mini_config(sources(folder)["parquet"], folder / "unloaded"))


def test_on_a_cluster_torch_is_imported_before_a_node_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes on one machine unpack a job's package again, and with it the working directory."""
    imported: list[str] = []

    def joins() -> None:
        assert imported == ["pipeline.operators"]
        raise UsageError("joined")

    monkeypatch.setattr(flow, "on_cluster", lambda: True)
    monkeypatch.setattr(flow, "import_module", imported.append)
    monkeypatch.setattr(flow, "session", joins)
    with pytest.raises(UsageError, match="joined"):
        flow.run(mini_config(sources(folder)["parquet"], folder / "joined"))
