"""Recognise data sets in formats that are not read, and say how to turn them into one that is."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import counted


@dataclass(frozen=True)
class _Layout:
    """A format of another tool.

    Attributes:
        what: its name in a sentence.
        pattern: a regular expression that matches the whole name of one of its files.
        advice: what to do; ``{root}`` is the place that the user named, ``{files}`` a pattern of
            its files.
    """

    what: str
    pattern: str
    advice: str


_LAYOUTS = (
    _Layout(
        "an Arrow folder of `datasets.save_to_disk`",
        r"(.*/)?data-\d+-of-\d+\.arrow",
        'turn it into Parquet: python -c "from datasets import load_from_disk as load; d = '
        "load('{root}'); [s.to_parquet(f'parquet/{{n}}.parquet') for n, s in (d.items() if "
        "isinstance(d, dict) else [('all', d)])]\", then legrad init parquet",
    ),
    _Layout(
        "MDS shards of MosaicML Streaming",
        r"(.*/)?shard\.\d+\.mds(\.\w+)?",
        'write the images into tars: python -c "import streaming, webdataset as w; o = '
        "w.ShardWriter('tars/%06d.tar'); [o.write({{'__key__': f'{{i:09d}}', 'png': s['image'], "
        "'cls': str(s.get('label', ''))}}) for i, s in enumerate(streaming.StreamingDataset("
        "local='{root}', batch_size=1))]; o.close()\" (pip install mosaicml-streaming webdataset), "
        "then legrad init tars",
    ),
    _Layout(
        "chunks of LitData",
        r"(.*/)?chunk-\d+-\d+(\.\w+)*\.bin",
        'write the images into tars: python -c "import litdata, webdataset as w; o = '
        "w.ShardWriter('tars/%06d.tar'); [o.write({{'__key__': f'{{i:09d}}', 'png': s['image'], "
        "'cls': str(s.get('label', ''))}}) for i, s in enumerate(litdata.StreamingDataset("
        "'{root}'))]; o.close()\" (pip install litdata webdataset), then legrad init tars",
    ),
    _Layout(
        "TFRecord files",
        r".*\.tfrecords?(-\d+-of-\d+|\.gz)?|(.*/)?[\w.-]+-\d{5}-of-\d{5}",
        'write the images into tars: python -c "import glob, tfrecord, webdataset as w; o = '
        "w.ShardWriter('tars/%06d.tar'); [o.write({{'__key__': f'{{i:09d}}', 'jpg': "
        "bytes(r['image/encoded']), 'cls': str(r['image/class/label'][0])}}) for i, r in "
        "enumerate(r for f in sorted(glob.glob('{files}')) for r in tfrecord.tfrecord_loader(f, "
        'None))]; o.close()" (pip install tfrecord webdataset), then legrad init tars',
    ),
    _Layout(
        "zip archives",
        r".*\.zip",
        "unpack them: for z in {files}; do unzip -d unpacked/$(basename $z .zip) $z; done, "
        "then legrad init unpacked",
    ),
    _Layout(
        "archives of 7-Zip or RAR",
        r".*\.(7z|rar)",
        "unpack them: 7z x -ounpacked {files}, then legrad init unpacked",
    ),
    _Layout(
        "an LMDB database",
        r"(.*/)?data\.mdb|.*\.lmdb",
        "write its images into tar shards or a folder first; what its values hold is known only to "
        "the code that wrote it",
    ),
    _Layout(
        "HDF5 files",
        r".*\.(h5|hdf5)",
        'write the images into a folder: python -c "import h5py, os; from PIL import Image; '
        "os.makedirs('images'); [Image.fromarray(a).save(f'images/{{i:09d}}.png') for i, a in "
        "enumerate(h5py.File('{root}')['images'])]\", then legrad init images",
    ),
    _Layout(
        "arrays or records of another tool",
        r"(.*/)?(.*\.(npz|npy|mat|rec|beton|lance|pkl|pickle)|.*-idx\d-ubyte(\.gz)?|data_batch_\d)",
        "write the images into a folder for each class with the code that reads them, as in: "
        "for i, (image, label) in enumerate(dataset): image.save(f'images/{{label}}/{{i:09d}}.png')"
        ", then legrad init images",
    ),
    _Layout(
        "pictures that Pillow cannot decode",
        r".*\.(dcm|dicom|nii(\.gz)?|svg|pdf|cr3|raf|rw2|exr)",
        "write them as PNG files first (DICOM: dcmj2pnm, SVG: rsvg-convert, PDF: pdftoppm -png, "
        "raw photographs: darktable-cli), then legrad init their folder",
    ),
    _Layout(
        "videos",
        r".*\.(mp4|avi|mov|mkv|webm)",
        "take frames out of them: mkdir frames; for v in {files}; do ffmpeg -i $v -vf fps=1 "
        "frames/$(basename $v)-%05d.jpg; done, then legrad init frames",
    ),
)


def foreign_layout(root: str, names: Sequence[str]) -> str | None:
    """What a place holds and what to do about it; None if its format is not known here.

    Args:
        root: the place, as the user named it.
        names: names of its files relative to it.
    """
    lerobot = _lerobot(root, names)
    if lerobot is not None:
        return lerobot
    for layout in _LAYOUTS:
        matches: Callable[[str], object] = re.compile(layout.pattern, re.IGNORECASE).fullmatch
        count = sum(matches(name) is not None for name in names)
        if count:
            place = root.rstrip("/")
            is_file = matches(place) is not None or "*" in place
            advice = layout.advice.format(root=place, files=place if is_file else f"{place}/*")
            return f"{layout.what} ({counted(count, 'file')}), which legrad does not read; {advice}"
    return None


def _lerobot(root: str, names: Sequence[str]) -> str | None:
    if "meta/info.json" not in names:
        return None
    place = root.rstrip("/")
    if any(name.startswith("videos/") for name in names):
        return (
            f"a LeRobot data set whose frames are in videos; {_frames(place)}, then legrad init "
            "frames"
        )
    return (
        "the root of a LeRobot data set; its frames are in the Parquet files below data: "
        f"legrad init {place}/data"
    )


def _frames(place: str) -> str:
    return (
        f"take frames out of them: mkdir frames; for v in $(find {place}/videos -name '*.mp4'); do "
        "ffmpeg -i $v -vf fps=1 frames/$(echo $v | tr / -)-%05d.jpg; done"
    )
