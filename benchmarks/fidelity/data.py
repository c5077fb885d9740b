"""Readers of the published data sets in their original files.

ImageNet-Segmentation (Guillaumin, Küttel and Ferrari, IJCV 2014) is one HDF5 file of MATLAB,
OpenImages V7 has a CSV of points and one of names, and ImageNet's validation set is a tar of JPEGs
with a development kit.
"""

import csv
import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from benchmarks.fidelity.protocols import Points
from pipeline.fidelity.segmentation import Mask


@dataclass(frozen=True)
class Segmented:
    """An image, the wnid of its class, and where the thing is."""

    image: Image.Image
    wnid: str
    mask: Mask


def imagenet_segmentation(file: Path) -> Iterator[Segmented]:
    """The images of ``gtsegs_ijcv.mat``, with masks of their size."""
    with h5py.File(file, "r") as root:
        value = root["value"]
        for image, masks, target in zip(value["img"], value["gt"], value["target"], strict=True):
            pixels = np.asarray(root[image[0]])  # MATLAB's order: (3, width, height)
            mask = np.asarray(root[root[masks[0]][0, 0]])  # of the first of several annotators
            wnid = "".join(map(chr, np.asarray(root[target[0]]).ravel()))
            yield Segmented(Image.fromarray(pixels.transpose(2, 1, 0)), wnid, mask.T > 0)


def words(file: Path) -> dict[str, str]:
    """ImageNet's ``words.txt``: wnid -> the first of its names."""
    lines = (line.split("\t") for line in file.read_text().splitlines() if "\t" in line)
    return {wnid: names.split(",")[0] for wnid, names in lines}


@dataclass(frozen=True)
class Pointed:
    """The file of an image, and the points of each class that is depicted in it."""

    file: Path
    points: Mapping[str, Points]


def openimages_points(points: Path, descriptions: Path, images: Path) -> Iterator[Pointed]:
    """Images of OpenImages V7 with points of classes that at least one point says yes to.

    Args:
        points: ``oidv7-val-annotations-point-labels.csv``; points that are unsure are left out.
        descriptions: ``oidv7-class-descriptions.csv``, the names of its labels.
        images: folder of the images, each ``ImageId.jpg``; those that are missing are left out.
    """
    with descriptions.open(newline="") as stream:
        names = {row["LabelName"]: row["DisplayName"] for row in csv.DictReader(stream)}
    answers: dict[str, dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    with points.open(newline="") as stream:
        for row in csv.DictReader(stream):
            said = row["EstimatedYesNo"].lower()
            if said in ("yes", "no"):
                point = (float(row["X"]), float(row["Y"]), float(said == "yes"))
                answers[row["ImageId"]][names[row["Label"]]].append(point)
    for image_id, by_class in answers.items():
        depicted = {name: np.array(rows) for name, rows in by_class.items()}
        depicted = {name: rows for name, rows in depicted.items() if rows[:, 2].any()}
        file = images / f"{image_id}.jpg"
        if depicted and file.exists():
            yield Pointed(file, depicted)


@dataclass(frozen=True)
class Labels:
    """Of ImageNet's validation set: names of the classes, and the class of each image in order."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]


def imagenet_labels(kit: Path) -> Labels:
    """Labels from ``ILSVRC2012_devkit_t12.tar.gz``; classes in the order of the kit."""
    with tarfile.open(kit) as archive:
        parts = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}

        def content(name: str) -> bytes:
            stream = archive.extractfile(parts[name])
            assert stream is not None
            return stream.read()

        meta = scipy.io.loadmat(io.BytesIO(content("meta.mat")), squeeze_me=True)["synsets"]
        numbers = np.array(
            content("ILSVRC2012_validation_ground_truth.txt").split(), dtype=np.int64
        )
    leaves = [row for row in meta if int(row["num_children"]) == 0]
    order = [int(row["ILSVRC2012_ID"]) for row in leaves]
    names = tuple(str(row["words"]).split(",")[0] for row in leaves)
    return Labels(names, np.array([order.index(number) for number in numbers]))


def imagenet_validation(images: Path, labels: Labels) -> Iterator[tuple[Image.Image, int]]:
    """Images of ``ILSVRC2012_img_val.tar`` with their labels; others in the tar are left out."""
    with tarfile.open(images) as archive:
        for member in archive:
            number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", Path(member.name).name)
            stream = archive.extractfile(member) if number else None
            if number and stream is not None:
                with Image.open(io.BytesIO(stream.read())) as image:
                    yield image.convert("RGB"), int(labels.labels[int(number[1]) - 1])
