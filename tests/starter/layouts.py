"""Data sets laid out as the tools write them that people have their images from.

Each generator writes a small data set into a folder and says what `legrad init` makes of it.
"""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data import hugging_face, jpeg, tar_bytes

COUNT = 6


@dataclass(frozen=True)
class Expected:
    """What `legrad init` finds in a data set.

    Attributes:
        format: format of the source.
        labels: labels of the images; empty where none is known.
        images: rows that a run reads.
        captions: whether every image has a caption.
        below: what to give to `legrad init`, below the folder of the data set.
        refused: words of the next command, where the data set is refused.
    """

    format: str
    labels: frozenset[str]
    images: int = COUNT
    captions: bool = False
    below: str = ""
    refused: str = ""


Generator = Callable[[Path], Expected]
LAYOUTS: dict[str, Generator] = {}
CATS = frozenset(("cat", "dog"))
NOTHING: frozenset[str] = frozenset()


def layout(generator: Generator) -> Generator:
    """Add a generator to `LAYOUTS`, by its name."""
    LAYOUTS[generator.__name__] = generator
    return generator


def kind(number: int) -> str:
    return ("cat", "dog")[number % 2]


def pictures(folder: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))


def table(file: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)


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
def hugging_face_image_folder(root: Path) -> Expected:
    pictures(root / "train", [f"{i}.jpg" for i in range(COUNT)])
    rows = [["file_name", "text", "label"], *([f"{i}.jpg", "x", kind(i)] for i in range(COUNT))]
    table(root / "train" / "metadata.csv", rows)
    return Expected("list", CATS, captions=True)


@layout
def torchvision_image_folder(root: Path) -> Expected:
    pictures(root, [f"{('train', 'val')[i > 3]}/{kind(i)}/{i}.JPEG" for i in range(COUNT)])
    return Expected("folder", CATS)


@layout
def kaggle_ids_without_extension(root: Path) -> Expected:
    pictures(root / "train", [f"00{i}f.jpg" for i in range(COUNT)])
    pictures(root / "test", [f"99{i}f.jpg" for i in range(2)])
    table(root / "train.csv", [["id", "breed"], *([f"00{i}f", kind(i)] for i in range(COUNT))])
    table(root / "sample_submission.csv", [["id", "cat"], ["990f", 0.5], ["991f", 0.5]])
    return Expected("folder", CATS, images=COUNT + 2)


@layout
def kaggle_columns_of_classes(root: Path) -> Expected:
    pictures(root / "images", [f"Train_{i}.jpg" for i in range(COUNT)])
    rows = [[f"Train_{i}", 1 - i % 2, i % 2] for i in range(COUNT)]
    table(root / "train.csv", [["image_id", "cat", "dog"], *rows])
    return Expected("folder", CATS)


@layout
def coco(root: Path) -> Expected:
    pictures(root / "train2017", [f"{i:012d}.jpg" for i in range(COUNT)])
    pictures(root / "val2017", ["000000000099.jpg"])
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in range(COUNT)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [0, 0, 5, 5]}
            for i in range(COUNT)
        ],
    }
    (root / "annotations").mkdir()
    for name in ("instances_train2017.json", "instances_val2017.json", "captions_train2017.json"):
        (root / "annotations" / name).write_text(json.dumps(content))
    return Expected("folder", CATS)


@layout
def celeba(root: Path) -> Expected:
    pictures(root / "img_align_celeba", [f"{i:06d}.jpg" for i in range(COUNT)])
    lines = [str(COUNT), "cat dog"]
    lines += [f"{i:06d}.jpg {(1, -1)[i % 2]:2d} {(-1, 1)[i % 2]:2d}" for i in range(COUNT)]
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return Expected("folder", CATS)


@layout
def yolo(root: Path) -> Expected:
    names = [f"{('train', 'val')[i > 3]}/{i}" for i in range(COUNT)]
    pictures(root / "images", [f"{name}.jpg" for name in names])
    for number, name in enumerate(names):
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text(f"{number % 2} 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return Expected("folder", NOTHING)


@layout
def pascal_voc(root: Path) -> Expected:
    names = [f"2007_{i:06d}" for i in range(COUNT)]
    pictures(root / "JPEGImages", [f"{name}.jpg" for name in names])
    pictures(root / "SegmentationClass", [f"{name}.png" for name in names[:2]])
    (root / "Annotations").mkdir()
    for name in names:
        (root / "Annotations" / f"{name}.xml").write_text("<annotation></annotation>")
    return Expected("folder", NOTHING)


@layout
def fastai(root: Path) -> Expected:
    pictures(root / "train", [f"{i}.png" for i in range(COUNT)])
    table(
        root / "labels.csv",
        [["name", "label"], *([f"train/{i}.png", kind(i)] for i in range(COUNT))],
    )
    return Expected("folder", CATS)


@layout
def timm_list(root: Path) -> Expected:
    pictures(root / "images", [f"{i}.jpg" for i in range(COUNT)])
    rows = [["filename", "label"], *([f"images/{i}.jpg", kind(i)] for i in range(COUNT))]
    table(root / "train.tsv", rows, "\t")
    return Expected("list", CATS, below="train.tsv")


@layout
def laion_list(root: Path) -> Expected:
    pictures(root, [f"{i}.jpg" for i in range(COUNT)])
    rows = [{"SAMPLE_ID": i, "URL": f"file://{root}/{i}.jpg", "TEXT": "x"} for i in range(COUNT)]
    pq.write_table(pa.Table.from_pylist(rows), root / "part-0.parquet")
    return Expected("list", NOTHING, captions=True, below="part-0.parquet")


@layout
def flickr30k(root: Path) -> Expected:
    pictures(root, [f"{i}.jpg" for i in range(COUNT)])
    lines = ["image_name| comment_number| comment"]
    lines += [f"{i}.jpg| {n}| Caption {n} ." for i in range(COUNT) for n in range(5)]
    (root / "results.csv").write_text("\n".join(lines))
    return Expected("list", NOTHING, captions=True, below="results.csv")


@layout
def excel_text(root: Path) -> Expected:
    pictures(root, [f"{i}.jpg" for i in range(COUNT)])
    lines = ["Datei;Category", *(f"{i}.jpg;{kind(i)}" for i in range(COUNT))]
    (root / "liste.csv").write_bytes("\r\n".join(lines).encode("utf-16"))
    return Expected("list", CATS, below="liste.csv")


@layout
def files_without_extension(root: Path) -> Expected:
    pictures(root, [f"{kind(i)}/{i:032x}" for i in range(COUNT)])
    return Expected("folder", CATS)


@layout
def json_lines(root: Path) -> Expected:
    pictures(root, [f"{i}.webp" for i in range(COUNT)])
    records = [{"file_path": f"{i}.webp", "category": kind(i), "score": i} for i in range(COUNT)]
    (root / "all.jsonl").write_text("\n".join(map(json.dumps, records)))
    return Expected("list", CATS, below="all.jsonl")


@layout
def coco_annotations_beside_the_images(root: Path) -> Expected:
    pictures(root / "val2017", [f"{i:012d}.jpg" for i in range(COUNT)])
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in range(COUNT)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": i, "category_id": 1 + i % 2} for i in range(COUNT - 1)],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return Expected("folder", CATS, below="val2017")


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


@layout
def kaggle_list(root: Path) -> Expected:
    pictures(root / "train_images", [f"00{i}f.png" for i in range(COUNT)])
    rows = [["id_code", "diagnosis"], *([f"00{i}f", kind(i)] for i in range(COUNT))]
    table(root / "train.csv", rows)
    return Expected("list", CATS, below="train.csv")
