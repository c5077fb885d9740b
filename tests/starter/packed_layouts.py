"""The same for tars and Parquet, and for formats that are refused with the next command."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data import hugging_face, jpeg, tar_bytes
from tests.starter.layout import CATS, COUNT, NOTHING, Expected, kind, layout, pictures


def _write_img2dataset_table(root: Path, more: Sequence[dict[str, Any]] = ({},) * COUNT) -> None:
    """The table and the statistics of a shard that img2dataset writes in every form."""
    records = [_img2dataset_record(i) | values for i, values in enumerate(more)]
    pq.write_table(pa.Table.from_pylist(records), root / "00000.parquet")
    (root / "00000_stats.json").write_text("{}")


def _img2dataset_record(number: int) -> dict[str, Any]:
    key = f"00000{number:04d}"
    return {
        "key": key,
        "caption": f"caption {number}",
        "url": f"https://a.org/{number}.jpg",
        "status": "success",
        "sha256": "0" * 64,
    }


@layout
def img2dataset_files(root: Path) -> Expected:
    pictures(root, [f"00000/00000{i:04d}.jpg" for i in range(COUNT)])
    for number in range(COUNT):
        record = _img2dataset_record(number)
        file = root / "00000" / record["key"]
        file.with_suffix(".json").write_text(json.dumps(record))
        file.with_suffix(".txt").write_text(record["caption"])
    _write_img2dataset_table(root)
    return Expected("folder", NOTHING, captions=True)


@layout
def img2dataset_webdataset(root: Path) -> Expected:
    members = []
    for number in range(COUNT):
        record = _img2dataset_record(number)
        members.append((f"{record['key']}.jpg", jpeg(number)))
        members.append((f"{record['key']}.json", json.dumps(record).encode()))
        members.append((f"{record['key']}.txt", record["caption"].encode()))
    (root / "00000.tar").write_bytes(tar_bytes(members))
    _write_img2dataset_table(root)
    return Expected("webdataset", NOTHING, captions=True)


@layout
def img2dataset_parquet(root: Path) -> Expected:
    _write_img2dataset_table(root, [{"jpg": jpeg(i)} for i in range(COUNT)])
    return Expected("parquet", NOTHING, captions=True)


@layout
def webdataset(root: Path) -> Expected:
    members = []
    for number in range(COUNT):
        members.append((f"sample{number:06d}.cls", kind(number).encode()))
        members.append((f"sample{number:06d}.jpg", jpeg(number)))
    (root / "train-000000.tar").write_bytes(tar_bytes(members))
    return Expected("webdataset", CATS)


@layout
def hugging_face_pushed(root: Path) -> Expected:
    for split, first in (("train", 0), ("test", 3)):
        rows = [
            {"image": {"bytes": jpeg(first + i), "path": f"{i}.jpg"}, "label": (first + i) % 2}
            for i in range(3)
        ]
        (root / "data").mkdir(exist_ok=True)
        hugging_face(root / "data" / f"{split}-00000-of-00001.parquet", rows, ["cat", "dog"])
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    return Expected("parquet", CATS)


@layout
def hugging_face_multi_label(root: Path) -> Expected:
    names = {"_type": "ClassLabel", "names": ["cat", "dog", "cow"]}
    features = {"image": {"_type": "Image"}, "labels": {"_type": "List", "feature": names}}
    sets = [[0, 1][: number % 3] for number in range(COUNT)]
    rows = [
        {"image": {"bytes": jpeg(number), "path": None}, "labels": labels}
        for number, labels in enumerate(sets)
    ]
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(meta), root / "0.parquet")
    return Expected("parquet", CATS)


@layout
def hive_folders(root: Path) -> Expected:
    for number in range(COUNT):
        folder = root / f"year={2000 + number}" / f"label={kind(number)}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": [jpeg(number)]}), folder / "part-0.parquet")
    return Expected("parquet", CATS)


@layout
def webdataset_zstandard(root: Path) -> Expected:
    members = []
    for number in range(COUNT):
        members.append((f"{number:06d}.jpg", jpeg(number)))
        members.append((f"{number:06d}.cls", kind(number).encode()))
    (root / "0.tar.zst").write_bytes(pa.compress(tar_bytes(members), "zstd", asbytes=True))
    return Expected("webdataset", CATS)


@layout
def lerobot_frames(root: Path) -> Expected:
    (root / "meta").mkdir()
    (root / "meta" / "info.json").write_text("{}")
    frames = [{"bytes": jpeg(number), "path": None} for number in range(COUNT)]
    rows = [{"observation.image": frame} for frame in frames]
    (root / "data" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "data" / "chunk-000" / "file-000.parquet")
    return Expected("parquet", NOTHING, below="data")


def refused(root: Path, files: dict[str, bytes], command: str) -> Expected:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return Expected("", NOTHING, refused=command)


@layout
def mosaic_mds(root: Path) -> Expected:
    shard = {"column_names": ["image", "label"], "format": "mds", "samples": 1, "version": 2}
    index = json.dumps({"shards": [shard], "version": 2}).encode()
    files = {"index.json": index, "shard.00000.mds": b"\x01\0\0\0" + jpeg(0)}
    return refused(root, files, "streaming.StreamingDataset")


@layout
def litdata(root: Path) -> Expected:
    index = json.dumps({"chunks": [{"filename": "chunk-0-0.bin", "chunk_size": 1}]}).encode()
    return refused(root, {"index.json": index, "chunk-0-0.bin": jpeg(0)}, "litdata.Streaming")


@layout
def tensorflow_datasets(root: Path) -> Expected:
    files = {"features.json": b"{}", "cats-train.tfrecord-00000-of-00001": b"\x01" + jpeg(0)}
    return refused(root, files, "tfrecord.tfrecord_loader")


@layout
def zip_archives(root: Path) -> Expected:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("cat/0.jpg", jpeg(0))
    return refused(root, {"pictures.zip": packed.getvalue()}, "unzip -d unpacked")


@layout
def lerobot_root(root: Path) -> Expected:
    lerobot_frames(root)
    return Expected("", NOTHING, refused=f"legrad init {root}/data")


@layout
def lerobot_videos(root: Path) -> Expected:
    lerobot_frames(root)
    return refused(root, {"videos/chunk-000/top/episode_000000.mp4": b"\0"}, "ffmpeg -i")


@layout
def videos(root: Path) -> Expected:
    return refused(root, {"cat/0.mp4": b"\0", "dog/1.avi": b"\0"}, "ffmpeg -i")


@layout
def hugging_face_saved(root: Path) -> Expected:
    files = {"dataset_info.json": b"{}", "state.json": b"{}", "data-00000-of-00001.arrow": b"\0"}
    return refused(root, files, "load_from_disk")


@layout
def hugging_face_sequence_of_images(root: Path) -> Expected:
    rows = [{"images": [{"bytes": jpeg(0), "path": None}, {"bytes": jpeg(1), "path": None}]}]
    pq.write_table(pa.Table.from_pylist(rows), root / "train-00000-of-00001.parquet")
    return Expected("", NOTHING, refused="explode('images')")


@layout
def hugging_face_videos(root: Path) -> Expected:
    features = {"huggingface": json.dumps({"info": {"features": {"video": {"_type": "Video"}}}})}
    rows = [{"video": {"bytes": b"\0", "path": "0.mp4"}, "label": 0}]
    made = pa.Table.from_pylist(rows).replace_schema_metadata(features)
    pq.write_table(made, root / "train-00000-of-00001.parquet")
    return Expected("", NOTHING, refused="ffmpeg")
