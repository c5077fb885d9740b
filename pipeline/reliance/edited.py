"""The edits of one pair as arrays: what changed, and whether the cue really went or came."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.reliance.fills import FILLS
from pipeline.reliance.task import Kind

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Deletion:
    """Deletions of one kind with their controls, n images that have both, F fills.

    Attributes:
        ids: (n,).
        before: (n, E) the images as they are.
        without: (F, n, E) the cue's region deleted.
        control: (F, n, E) a region of its shape deleted elsewhere.
    """

    ids: tuple[str, ...]
    before: Vectors
    without: Vectors
    control: Vectors

    @property
    def change(self) -> Vectors:
        """(F, n, E) control minus without: what the cue gave that not any patch gives."""
        return self.control - self.without

    def take(self, rows: NDArray[np.bool_]) -> "Deletion":
        """Some of the images."""
        ids = tuple(name for name, kept in zip(self.ids, rows, strict=True) if kept)
        return Deletion(ids, self.before[rows], self.without[:, rows], self.control[:, rows])


@dataclass(frozen=True)
class Insertion:
    """Targets that got the cue, and the same with other crops.

    Attributes:
        ids: (n,) of the targets.
        before, inserted, control: (n, E).
    """

    ids: tuple[str, ...]
    before: Vectors
    inserted: Vectors
    control: Vectors


@dataclass(frozen=True)
class Edited:
    """Everything that was edited for one pair.

    Attributes:
        images: of the class, with the cue, that could be fetched.
        deleted: the cue's region.
        spared: the cue's region without what lies on the object.
        joint: partner -> both regions.
        inserted: into images of the rival.
        errors: why images could not be fetched.
    """

    images: int
    deleted: Deletion
    spared: Deletion
    joint: Mapping[str, Deletion]
    inserted: Insertion
    errors: tuple[str, ...]

    @classmethod
    def of(cls, table: pa.Table) -> "Edited":
        """From rows of `edits_schema`."""
        rows = _Rows(table)
        deleted = rows.deletion(Kind.DELETED, Kind.DELETED_ELSEWHERE)
        spared = rows.deletion(Kind.SPARED, Kind.SPARED_ELSEWHERE)
        partners = sorted({key[2] for key in rows.places if key[2]})
        return cls(
            images=sum(1 for key in rows.places if key[1] == Kind.ORIGINAL),
            deleted=deleted,
            spared=spared,
            joint={partner: rows.deletion(*_JOINT, partner) for partner in partners},
            inserted=rows.insertion(),
            errors=tuple(sorted({e for e in table["error"].to_pylist() if e is not None})),
        )


_JOINT = (Kind.JOINT, Kind.JOINT_ELSEWHERE)


class _Rows:
    """Rows of a table by image, kind, partner and fill."""

    def __init__(self, table: pa.Table) -> None:
        fine = table.filter(table["embedding"].is_valid())
        column = fine["embedding"].combine_chunks()
        array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        self.width = table.schema.field("embedding").type.list_size
        flat: Vectors = array.flatten().to_numpy(zero_copy_only=False)
        self.vectors = flat.reshape(-1, self.width)
        names = ("image_id", "kind", "partner", "fill")
        keys = zip(*(fine[name].to_pylist() for name in names), strict=True)
        self.places = {
            (i, k, p if p and k in _JOINT else "", f or ""): row
            for row, (i, k, p, f) in enumerate(keys)
        }

    def deletion(self, without: Kind, control: Kind, partner: str = "") -> Deletion:
        """Images with both kinds, which come together."""
        ids = tuple(
            dict.fromkeys(i for i, kind, p, _ in self.places if kind == without and p == partner)
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
        """Targets that got something."""
        ids = tuple(i for i, kind, _, _ in self.places if kind == Kind.INSERTED)
        kinds = (Kind.TARGET, Kind.INSERTED, Kind.INSERTED_OTHER)
        return Insertion(ids, *(self._at([(i, kind, "", "") for i in ids]) for kind in kinds))

    def _at(self, keys: list[tuple[str, str, str, str]]) -> Vectors:
        rows = [self.places[key] for key in keys]
        result: Vectors = self.vectors[np.array(rows, dtype=np.int64)]
        return result
