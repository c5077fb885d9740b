"""The edits of a pair: their kinds, the files that store them, and their embeddings as arrays."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.reliance.regions import FILLS
from pipeline.storage.location import Location

Vectors = NDArray[np.float32]


class Kind(StrEnum):
    """What was done to an image before it was embedded."""

    ORIGINAL = "original"
    DELETED = "deleted"
    """Without the cue's region."""
    DELETED_ELSEWHERE = "deleted elsewhere"
    """Without a region of the same shape at another position: the control of `DELETED`."""
    SPARED = "deleted beside the object"
    """Without the part of the cue's region that does not lie on the object."""
    SPARED_ELSEWHERE = "deleted beside the object, elsewhere"
    JOINT = "deleted with partner"
    """Without the regions of the cue and of another cue that goes with it."""
    JOINT_ELSEWHERE = "deleted with partner, elsewhere"
    TARGET = "target"
    """An unchanged image of the rival class without the cue."""
    INSERTED = "inserted"
    """A target into which the cue's region of an image of the class is pasted."""
    INSERTED_OTHER = "inserted other"
    """The target with the same cells of another target: the control of `INSERTED`."""


def edits_schema(width: int, cells: int) -> pa.Schema:
    """Schema of a file of edits, which has one row per edited image.

    Columns: ``image_id``; ``kind``, see `Kind`; ``partner``: the other cue of a joint deletion, or
    the image from which an insertion was cropped; ``fill``, null where nothing is filled;
    ``region``, one byte per cell, 1 = edited; ``embedding``, unit, float32; ``error``: why an image
    has no embedding.

    Args:
        width: width of the embeddings.
        cells: number of cells of a map.
    """
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("partner", pa.string()),
            pa.field("fill", pa.string()),
            pa.field("region", pa.binary(cells)),
            pa.field("embedding", pa.list_(pa.float32(), width)),
            pa.field("error", pa.string()),
        ]
    )


def write_edits(file: Location, table: pa.Table) -> None:
    """Write a table with `edits_schema` as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    file.write(buffer.getvalue())


def read_edits(file: Location) -> pa.Table:
    """Inverse of `write_edits`."""
    return pq.read_table(io.BytesIO(file.read()))


def write_texts(file: Location, texts: Mapping[str, Vectors]) -> None:
    """Write the (E,) direction of each query's text as an .npz file.

    `numpy.savez` takes names as keyword arguments and so refuses a query called ``file``.
    """
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, direction in texts.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, direction, allow_pickle=False)
    file.write(buffer.getvalue())


def read_texts(file: Location) -> dict[str, Vectors]:
    """Inverse of `write_texts`."""
    with np.load(io.BytesIO(file.read()), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@dataclass(frozen=True)
class Deletion:
    """Embeddings of n images with a region deleted, by F fills, and of their controls.

    Attributes:
        ids: (n,) image_ids.
        before: (n, E) the unchanged images.
        without: (F, n, E) with the cue's region deleted.
        control: (F, n, E) with a region of the same shape deleted elsewhere.
    """

    ids: tuple[str, ...]
    before: Vectors
    without: Vectors
    control: Vectors

    @property
    def change(self) -> Vectors:
        """(F, n, E) control minus without: what the cue contributes beyond any other patch."""
        return self.control - self.without

    def take(self, rows: NDArray[np.bool_]) -> "Deletion":
        """The same for some of the images."""
        ids = tuple(name for name, kept in zip(self.ids, rows, strict=True) if kept)
        return Deletion(ids, self.before[rows], self.without[:, rows], self.control[:, rows])


@dataclass(frozen=True)
class Insertion:
    """Embeddings of n targets with the cue inserted, and of their controls.

    Attributes:
        ids: (n,) image_ids of the targets.
        before: (n, E) the unchanged targets.
        inserted: (n, E) with the cue's region of another image.
        control: (n, E) with the same cells of an image without the cue.
    """

    ids: tuple[str, ...]
    before: Vectors
    inserted: Vectors
    control: Vectors


@dataclass(frozen=True)
class PairEdits:
    """All edits of one pair of class and cue.

    Attributes:
        images: number of images of the class with the cue that could be fetched.
        deleted: deletion of the cue's region.
        spared: deletion of the part of the region that does not lie on the object.
        joint: partner -> deletion of both cues' regions.
        inserted: insertion of the cue into images of the rival class.
        errors: why images could not be fetched.
    """

    images: int
    deleted: Deletion
    spared: Deletion
    joint: Mapping[str, Deletion]
    inserted: Insertion
    errors: tuple[str, ...]

    @classmethod
    def of(cls, table: pa.Table) -> "PairEdits":
        """From a table with `edits_schema`."""
        rows = _EditRows(table)
        deleted = rows.deletion(Kind.DELETED, Kind.DELETED_ELSEWHERE)
        spared = rows.deletion(Kind.SPARED, Kind.SPARED_ELSEWHERE)
        partners = sorted({key[2] for key in rows.positions if key[2]})
        return cls(
            images=sum(1 for key in rows.positions if key[1] == Kind.ORIGINAL),
            deleted=deleted,
            spared=spared,
            joint={partner: rows.deletion(*_JOINT, partner) for partner in partners},
            inserted=rows.insertion(),
            errors=tuple(sorted({text for text in table["error"].to_pylist() if text is not None})),
        )


_JOINT = (Kind.JOINT, Kind.JOINT_ELSEWHERE)


class _EditRows:
    """The embeddings of a table, by image, kind, partner and fill."""

    def __init__(self, table: pa.Table) -> None:
        embedded = table.filter(table["embedding"].is_valid())
        column = embedded["embedding"].combine_chunks()
        array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        self.width = table.schema.field("embedding").type.list_size
        flat: Vectors = array.flatten().to_numpy(zero_copy_only=False)
        self.vectors = flat.reshape(-1, self.width)
        names = ("image_id", "kind", "partner", "fill")
        keys = zip(*(embedded[name].to_pylist() for name in names), strict=True)
        self.positions = {
            (image_id, kind, partner if partner and kind in _JOINT else "", fill or ""): row
            for row, (image_id, kind, partner, fill) in enumerate(keys)
        }

    def deletion(self, without: Kind, control: Kind, partner: str = "") -> Deletion:
        """The images that have a deletion of these kinds; an image has both or none."""
        ids = tuple(
            dict.fromkeys(i for i, kind, p, _ in self.positions if kind == without and p == partner)
        )
        return Deletion(
            ids,
            self._at([(i, Kind.ORIGINAL, "", "") for i in ids]),
            *(
                np.stack([self._at([(i, kind, partner, fill) for i in ids]) for fill in FILLS])
                for kind in (without, control)
            ),
        )

    def insertion(self) -> Insertion:
        """The targets into which the cue was inserted."""
        ids = tuple(i for i, kind, _, _ in self.positions if kind == Kind.INSERTED)
        kinds = (Kind.TARGET, Kind.INSERTED, Kind.INSERTED_OTHER)
        return Insertion(ids, *(self._at([(i, kind, "", "") for i in ids]) for kind in kinds))

    def _at(self, keys: list[tuple[str, str, str, str]]) -> Vectors:
        rows = [self.positions[key] for key in keys]
        result: Vectors = self.vectors[np.array(rows, dtype=np.int64)]
        return result
