"""Folders and lists as the tools write them that people have their images from.

Each generator writes a small data set into a folder and says what `legrad init` makes of it.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.starter.layout import CATS, COUNT, NOTHING, Expected, kind, layout, pictures, table


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
def kaggle_list(root: Path) -> Expected:
    pictures(root / "train_images", [f"00{i}f.png" for i in range(COUNT)])
    rows = [["id_code", "diagnosis"], *([f"00{i}f", kind(i)] for i in range(COUNT))]
    table(root / "train.csv", rows)
    return Expected("list", CATS, below="train.csv")


@layout
def tiny_imagenet(root: Path) -> Expected:
    pictures(root, [f"train/{kind(i)}/images/{kind(i)}_{i}.JPEG" for i in range(COUNT)])
    pictures(root, ["val/images/val_0.JPEG", "test/images/test_0.JPEG"])
    for name in ("cat", "dog"):
        table(root / "train" / name / f"{name}_boxes.txt", [[f"{name}_0.JPEG", 0, 0, 9, 9]], "\t")
    table(root / "val" / "val_annotations.txt", [["val_0.JPEG", "cat", 0, 32, 44, 62]], "\t")
    (root / "wnids.txt").write_text("cat\ndog\n")
    return Expected("folder", CATS, images=COUNT + 2)


@layout
def tiny_imagenet_validation(root: Path) -> Expected:
    pictures(root / "val" / "images", [f"val_{i}.JPEG" for i in range(COUNT)])
    rows = [[f"val_{i}.JPEG", kind(i), 0, 32, 44, 62] for i in range(COUNT)]
    table(root / "val" / "val_annotations.txt", rows, "\t")
    return Expected("folder", CATS, below="val")


@layout
def roboflow_yolo(root: Path) -> Expected:
    pictures(root, [f"{('train', 'valid')[i > 3]}/images/{i}.jpg" for i in range(COUNT)])
    for split in ("train", "valid"):
        (root / split / "labels").mkdir()
        (root / split / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    return Expected("folder", NOTHING)


@layout
def oxford_flowers(root: Path) -> Expected:
    pictures(root / "jpg", [f"image_{i:05d}.jpg" for i in range(COUNT)])
    (root / "imagelabels.mat").write_bytes(b"MATLAB")
    return Expected("folder", NOTHING)


@layout
def kaggle_imagenet_validation(root: Path) -> Expected:
    """The only other column has a class with a box, which is no label."""
    pictures(root / "val", [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(COUNT)])
    rows = [[f"ILSVRC2012_val_{i:08d}", f"n01440764 {i} 108 432 286"] for i in range(COUNT)]
    table(root / "LOC_val_solution.csv", [["ImageId", "PredictionString"], *rows])
    return Expected("folder", NOTHING)


@layout
def folders_beside_their_archive(root: Path) -> Expected:
    pictures(root, [f"{kind(i)}/{i}.jpg" for i in range(COUNT)])
    (root / "download.zip").write_bytes(b"PK")
    return Expected("folder", CATS)
