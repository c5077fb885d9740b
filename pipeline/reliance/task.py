"""What is edited for one pair of class and cue, and how the outcome is stored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipeline.schema import FETCH_COLUMNS

PLACE = ("image_id", *FETCH_COLUMNS, "width", "height")
"""Columns that an image is found again by."""


class Kind(StrEnum):
    """What was done to an image before it was embedded."""

    ORIGINAL = "original"
    DELETED = "deleted"
    """Without the cue's region."""
    DELETED_ELSEWHERE = "deleted elsewhere"
    """Without a region of the same shape in another place: the control of `DELETED`."""
    SPARED = "deleted beside the object"
    """Without the cue's region, but for what lies on the object."""
    SPARED_ELSEWHERE = "deleted beside the object, elsewhere"
    JOINT = "deleted with partner"
    """Without the regions of the cue and of another one that goes with it."""
    JOINT_ELSEWHERE = "deleted with partner, elsewhere"
    TARGET = "target"
    """An image of the rival class without the cue, as it is."""
    INSERTED = "inserted"
    """A target with the cue's region of an image of the class."""
    INSERTED_OTHER = "inserted other"
    """The same target with the same cells of another target: the control of `INSERTED`."""


@dataclass(frozen=True)
class PairTask:
    """Everything about one pair that decides its edits.

    Attributes:
        cls, cue: label and name of the cue's query.
        own: name of the class's query; None where it has none.
        images: rows of `PLACE` of the class's images with the cue, and ``others``: names of the
            other cues that they have.
        targets: the same of images without the cue of the rival class.
        partners: cues that go together with this one in the class.
    """

    cls: str
    cue: str
    own: str | None
    images: tuple[Mapping[str, Any], ...]
    targets: tuple[Mapping[str, Any], ...]
    partners: tuple[str, ...]

    def to_json(self) -> str:
        """As text, for the way to a worker."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PairTask":
        """Inverse of `to_json`."""
        values = json.loads(text)
        for name in ("images", "targets", "partners"):
            values[name] = tuple(values[name])
        return cls(**values)

    def digest(self, about: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of the task and of what else decides the outcome."""
        text = json.dumps(dict(about), sort_keys=True) + self.to_json()
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def edits(self) -> int:
        """Embeddings that it takes, at most."""
        joint = 4 if self.partners else 0
        return len(self.images) * (9 + joint) + len(self.targets) * 3


def edits_schema(width: int, cells: int) -> pa.Schema:
    """One row an edited image.

    Columns: ``image_id``; ``kind``, see `Kind`; ``partner``: of a joint deletion the other cue, of
    an insertion the image that the crop is from; ``fill``, null where nothing is filled;
    ``region``, one byte a cell, 1 = edited; ``embedding``, unit, float32; ``error``: why an image
    has no embedding.
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


def place_of(row: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a result's row that a task keeps."""
    return {name: row[name] for name in PLACE} | {"others": sorted(others)}
