"""The whole flow on Parquet and on a list: what goes in comes out and is found again."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.flow import run
from tests.data import CLASSES_AND_CUES, hugging_face, jpeg, mini_config, picture
from tests.jobs.command import legrad

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


@pytest.mark.parametrize("kind", ["parquet", "list"])
def test_from_the_source_to_the_overlay(ray_session: None, folder: Path, kind: str) -> None:
    output = folder / "out"
    source = sources(folder)[kind]
    summary = run(mini_config(source, output))
    assert summary.statuses == {"ok": 11, "not_an_image": 1}
    results = open_results(str(output))
    images = results.images().sort_values("year")
    assert images["label"].tolist() == [*LABELS] * 6
    assert images["year"].tolist() == list(range(2000, 2012))
    assert images["status"].tolist()[5] == "not_an_image"
    for number in (0, 4, 11):
        original = results.image(images.index[number])
        assert original.size == picture(number).size
        assert original.tobytes() == _upright(jpeg(number))
    assert results.overlay(images.index[0], "watermark").size == original.size


def test_a_limit_makes_another_run(ray_session: None, folder: Path) -> None:
    source = sources(folder)["list"]
    summary = run(mini_config(source | {"limit": 7}, folder / "out"))
    assert summary.rows == 7
    years = open_results(str(folder / "out")).images()["year"]
    assert sorted(years) == list(range(2000, 2007))
    with pytest.raises(UsageError, match=r"source\.limit: there 7, here 3"):
        run(mini_config(source | {"limit": 3}, folder / "out"))


def test_labels_beside_the_images(ray_session: None, folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("\n".join(["key,label", *(f"{i},class {i % 3}" for i in range(9))]))
    source = sources(folder)["parquet"] | {"labels": {"uri": str(table)}}
    summary = run(mini_config(source, folder / "out"))
    assert f"3 of 12 images have no label in {table}." in summary.notes
    labels = open_results(str(folder / "out")).images()["label"]
    assert labels["p/train.parquet/4"] == "class 1"
    assert labels.isna().sum() == 3
    table.write_text(table.read_text().replace("class 1", "other"))
    with pytest.raises(UsageError, match=r"source\.labels"):
        run(mini_config(source, folder / "out"))


def test_no_secret_in_a_manifest(ray_session: None, folder: Path) -> None:
    from tests.web import web_server

    token = "X-Signature=s3cr3t"
    with web_server(folder / "data", token=token) as place:
        uri = f"http://user:passw0rd@{place}/train.parquet?{token}"
        summary = run(mini_config({"format": "parquet", "uri": uri}, folder / "out"))
        assert summary.rows == 12
        with pytest.raises(UsageError):
            open_results(str(folder / "out")).image("train.parquet/0")
        moved = open_results(str(folder / "out"), source=uri)
        assert moved.image("train.parquet/0").size == picture(0).size
    manifest = (folder / "out" / "_run" / "manifest.json").read_text()
    assert json.loads(manifest)["source"]["uri"] == [f"http://{place}/train.parquet"]
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    for path in files:
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
