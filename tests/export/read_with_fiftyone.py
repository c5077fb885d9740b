"""Load both exports with FiftyOne: ``python read_with_fiftyone.py FOLDER CUE``.

A process of its own, because FiftyOne reads its settings, such as the address of its database, when
it is imported.
"""

import os
import sys
import tempfile
from pathlib import Path

from secantus import SecantusDBServer


def read(folder: Path, cue: str) -> None:
    """Check that pictures, heat and masks are found."""
    import fiftyone as fo

    whole = fo.Dataset.from_dir(
        dataset_dir=str(folder / "fiftyone"), dataset_type=fo.types.FiftyOneDataset, progress=False
    )
    assert len(whole) == 2
    for sample in whole:
        assert Path(sample.filepath).is_file()
        assert Path(sample[f"heat_{cue}"].map_path).is_file()
        assert sample[f"score_{cue}"] is not None
        assert sample.ground_truth.label
    file = folder / "fiftyone" / "samples.json"
    assert len(fo.Dataset.from_json(str(file), rel_dir=str(file.parent), progress=False)) == 2
    coco = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(folder / "coco"),
        labels_path=str(folder / "coco" / "cues.json"),
        label_types="segmentations",
        progress=False,
    )
    assert len(coco) == 2
    (field,) = (
        name for name in coco.get_field_schema() if "segment" in name or name == "ground_truth"
    )
    for sample in coco:
        assert Path(sample.filepath).is_file()
        (detection,) = sample[field].detections
        assert detection.label == cue
        assert detection.mask.any()
        assert detection["image_label"]


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as home,
        SecantusDBServer(storage_path=f"{home}/db") as server,
    ):
        os.environ["HOME"] = home
        os.environ["FIFTYONE_DATABASE_URI"] = server.uri
        os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"
        os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
        read(Path(sys.argv[1]), sys.argv[2])
