"""The loaders of published data sets, on tiny files of the form that their owners ship."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

h5py = pytest.importorskip("h5py")

from benchmarks.fidelity.data import (  # noqa: E402 - needs h5py
    imagenet_labels,
    imagenet_segmentation,
    imagenet_validation,
    openimages_points,
    words,
)


def test_segmentation_from_matlabs_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(5, 7), (6, 4)]
    pixels = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    masks = [rng.random(size) < 0.4 for size in sizes]
    reference = h5py.special_dtype(ref=h5py.Reference)
    with h5py.File(tmp_path / "gtsegs_ijcv.mat", "w") as root:
        columns = {n: root.create_dataset(f"value/{n}", (2, 1), reference) for n in NAMES}
        for row in range(2):
            cell = root.create_dataset(f"#refs#/cell{row}", (1, 1), reference)
            mask = root.create_dataset(f"#refs#/mask{row}", data=masks[row].T.astype(np.uint8))
            cell[0, 0] = mask.ref
            text = np.array([[ord(c)] for c in f"n0000000{row}"], dtype=np.uint16)
            columns["gt"][row, 0] = cell.ref
            image = root.create_dataset(f"#refs#/image{row}", data=pixels[row].transpose(2, 1, 0))
            columns["img"][row, 0] = image.ref
            columns["target"][row, 0] = root.create_dataset(f"#refs#/wnid{row}", data=text).ref
    found = list(imagenet_segmentation(tmp_path / "gtsegs_ijcv.mat"))
    assert [one.wnid for one in found] == ["n00000000", "n00000001"]
    for one, image, mask in zip(found, pixels, masks, strict=True):
        np.testing.assert_array_equal(np.asarray(one.image), image)
        np.testing.assert_array_equal(one.mask, mask)


NAMES = ("img", "gt", "target")


def test_names_of_wnids(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgoldfish\n")
    assert words(tmp_path / "words.txt") == {"n01": "tench", "n02": "goldfish"}


def test_points_of_the_classes_that_are_depicted(tmp_path: Path) -> None:
    header = "ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel"
    rows = [
        "a,0.25,0.5,/m/1,yes,ih,3,0,0,",
        "a,0.75,0.5,/m/1,no,ih,0,3,0,",
        "a,0.5,0.5,/m/1,unsure,ih,1,1,1,",
        "a,0.5,0.5,/m/2,no,ih,0,3,0,",  # class 2 is nowhere in this image
        "gone,0.5,0.5,/m/2,yes,ih,3,0,0,",
    ]
    (tmp_path / "points.csv").write_text("\n".join([header, *rows]) + "\n")
    names = 'LabelName,DisplayName\n/m/1,"Bowl, wooden"\n/m/2,Cat\n'
    (tmp_path / "names.csv").write_text(names)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    (one,) = openimages_points(tmp_path / "points.csv", tmp_path / "names.csv", tmp_path)
    assert one.file == tmp_path / "a.jpg"
    assert list(one.points) == ["Bowl, wooden"]
    np.testing.assert_array_equal(one.points["Bowl, wooden"], [[0.25, 0.5, 1], [0.75, 0.5, 0]])


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if colour == "black" else "RGB", (8, 8), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def test_imagenets_validation_set_with_its_kit(tmp_path: Path) -> None:
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array(
        [(1, "n02", "goldfish, Carassius", 0), (2, "n01", "tench", 0), (3, "n00", "fish", 2)], kind
    )
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets[:, None]})
    kit, images = tmp_path / "ILSVRC2012_devkit_t12.tar.gz", tmp_path / "ILSVRC2012_img_val.tar"
    with tarfile.open(kit, "w:gz") as archive:
        folder = "ILSVRC2012_devkit_t12/data"
        _add(archive, f"{folder}/meta.mat", meta.getvalue())
        _add(archive, f"{folder}/ILSVRC2012_validation_ground_truth.txt", b"2\n1\n2\n")
    with tarfile.open(images, "w") as archive:
        _add(archive, "ILSVRC2012_val_00000002.JPEG", _jpeg("black"))
        _add(archive, "ILSVRC2012_val_00000003.JPEG", _jpeg("red"))
        _add(archive, "readme.txt", b"no image")
    labels = imagenet_labels(kit)
    assert labels.names == ("goldfish", "tench")
    found = list(imagenet_validation(images, labels))
    assert [labels.names[label] for _, label in found] == ["goldfish", "tench"]
    assert [image.mode for image, _ in found] == ["RGB", "RGB"]
    assert found[1][0].getpixel((4, 4))[0] > 200
