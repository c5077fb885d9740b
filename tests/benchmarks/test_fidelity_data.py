"""The loaders of published data sets, on tiny files of the form that their owners ship."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

h5py = pytest.importorskip("h5py")

from benchmarks.fidelity import cases  # noqa: E402 - needs h5py
from benchmarks.fidelity.__main__ import masked, perturbed  # noqa: E402
from benchmarks.fidelity.data import (  # noqa: E402
    imagenet_labels,
    imagenet_segmentation,
    imagenet_validation,
    openimages_points,
    words,
)
from benchmarks.fidelity.methods import Ours  # noqa: E402
from legrad import load_model  # noqa: E402

NAMES = ("img", "gt", "target")


def _matlab(file: Path, sizes: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Write images of these sizes with masks and wnids; returns pixels and masks."""
    rng = np.random.default_rng(0)
    written = []
    reference = h5py.special_dtype(ref=h5py.Reference)
    with h5py.File(file, "w") as root:
        columns = {n: root.create_dataset(f"value/{n}", (len(sizes), 1), reference) for n in NAMES}
        for row, size in enumerate(sizes):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            mask = rng.random(size) < 0.4
            cell = root.create_dataset(f"#refs#/cell{row}", (1, 1), reference)
            cell[0, 0] = root.create_dataset(f"#refs#/mask{row}", data=mask.T.astype("u1")).ref
            text = np.array([[ord(c)] for c in f"n0000000{row}"], dtype=np.uint16)
            columns["gt"][row, 0] = cell.ref
            image = root.create_dataset(f"#refs#/image{row}", data=pixels.transpose(2, 1, 0))
            columns["img"][row, 0] = image.ref
            columns["target"][row, 0] = root.create_dataset(f"#refs#/wnid{row}", data=text).ref
            written.append((pixels, mask))
    return written


def test_segmentation_from_matlabs_file(tmp_path: Path) -> None:
    written = _matlab(tmp_path / "gtsegs_ijcv.mat", [(5, 7), (6, 4)])
    found = list(imagenet_segmentation(tmp_path / "gtsegs_ijcv.mat"))
    assert [one.wnid for one in found] == ["n00000000", "n00000001"]
    for one, (pixels, mask) in zip(found, written, strict=True):
        np.testing.assert_array_equal(np.asarray(one.image), pixels)
        np.testing.assert_array_equal(one.mask, mask)


def test_names_of_wnids(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgoldfish\n")
    assert words(tmp_path / "words.txt") == {"n01": "tench", "n02": "goldfish"}


def _points(folder: Path) -> tuple[Path, Path, Path]:
    """Write two points of a bowl in one image, and some that do not count."""
    header = "ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel"
    rows = [
        "a,0.25,0.5,/m/1,yes,ih,3,0,0,",
        "a,0.75,0.5,/m/1,no,ih,0,3,0,",
        "a,0.5,0.5,/m/1,unsure,ih,1,1,1,",
        "a,0.5,0.5,/m/2,no,ih,0,3,0,",  # class 2 is nowhere in this image
        "gone,0.5,0.5,/m/2,yes,ih,3,0,0,",
    ]
    (folder / "points.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "names.csv").write_text('LabelName,DisplayName\n/m/1,"Bowl, wooden"\n/m/2,Cat\n')
    Image.new("RGB", (64, 48), "red").save(folder / "a.jpg")
    return folder / "points.csv", folder / "names.csv", folder


def test_points_of_the_classes_that_are_depicted(tmp_path: Path) -> None:
    (one,) = openimages_points(*_points(tmp_path))
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


def _validation(folder: Path) -> tuple[Path, Path]:
    """Write a tar of two images, and a kit of two classes and the labels of three images."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array(
        [(1, "n02", "goldfish, Carassius", 0), (2, "n01", "tench", 0), (3, "n00", "fish", 2)], kind
    )
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets[:, None]})
    images, kit = folder / "ILSVRC2012_img_val.tar", folder / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit, "w:gz") as archive:
        inside = "ILSVRC2012_devkit_t12/data"
        _add(archive, f"{inside}/meta.mat", meta.getvalue())
        _add(archive, f"{inside}/ILSVRC2012_validation_ground_truth.txt", b"2\n1\n2\n")
    with tarfile.open(images, "w") as archive:
        _add(archive, "ILSVRC2012_val_00000002.JPEG", _jpeg("black"))
        _add(archive, "ILSVRC2012_val_00000003.JPEG", _jpeg("red"))
        _add(archive, "readme.txt", b"no image")
    return images, kit


def test_imagenets_validation_set_with_its_kit(tmp_path: Path) -> None:
    images, kit = _validation(tmp_path)
    labels = imagenet_labels(kit)
    assert labels.names == ("goldfish", "tench")
    found = list(imagenet_validation(images, labels))
    assert [labels.names[label] for _, label in found] == ["goldfish", "tench"]
    assert [image.mode for image, _ in found] == ["RGB", "RGB"]
    assert found[1][0].getpixel((4, 4))[0] > 200


@pytest.mark.filterwarnings("ignore:model 'mini' never saw")
def test_the_bench_measures_the_published_sets(tmp_path: Path) -> None:
    _matlab(tmp_path / "a.mat", [(50, 70), (60, 40)])
    (tmp_path / "words.txt").write_text("n00000000\ttench\nn00000001\tgoldfish\n")
    model = load_model("mini")
    method = Ours(model, 2)
    row = masked(method, cases.segmentation(model, tmp_path / "a.mat", tmp_path / "words.txt", 9))
    assert {"mIoU at .5", "mIoU at mean", "mAP", "mIoU, wrong text"} < set(row)
    found = cases.open_vocabulary(model, _points(tmp_path), 9)
    assert set(masked(method, found)) == {"ms a map", "p-mIoU"}
    found = cases.validation(model, *_validation(tmp_path), 9)
    assert found.texts == ("goldfish", "tench")
    areas = perturbed(method, found, model)
    assert {"negative, predicted", "positive, target", "gap, target", "SaCo"} < set(areas)
