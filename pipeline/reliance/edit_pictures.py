"""Pictures of edits: an image, the same without the cue, and what that changed."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from legrad.preprocess import Preprocess, to_rgb
from pipeline.errors import UsageError
from pipeline.reliance.fills import surroundings
from pipeline.reliance.regions import pixels_of
from pipeline.reliance.task import Kind, PairTask

if TYPE_CHECKING:
    from pipeline.reliance.reliance import Reliance

_FILL = "surroundings"


@dataclass(frozen=True)
class EditExample:
    """One image and one edit of it.

    Attributes:
        image_id: of the image.
        kind: `Kind.DELETED` or `Kind.INSERTED`.
        before, after, control: pictures; the control has the same done in another place (deletion)
            or with a crop without the cue (insertion).
        change, control_change: of the probe's logit of the class against its rival, by the probe
            that did not see the image, in shares of the distance between the two classes.
    """

    image_id: str
    kind: Kind
    before: Image.Image
    after: Image.Image
    control: Image.Image
    change: float
    control_change: float


def examples(
    reliance: "Reliance", cls: str, cue: str, count: int = 4, side: int = 192
) -> list[EditExample]:
    """A few deletions and insertions of a tested pair; images that are gone are left out.

    Args:
        count: of each.
        side: of the pictures in pixels, about.

    Raises:
        KeyError: the pair was not tested.
    """
    named = {(task.cls, task.cue): name for name, task in reliance.tasks.items()}
    if (cls, cue) not in named:
        raise KeyError(f"{cls}, {cue}: not among the tested pairs")
    shelf = _Shelf(reliance, named[cls, cue], side)
    found: list[EditExample] = []
    for kind, control in (
        (Kind.DELETED, Kind.DELETED_ELSEWHERE),
        (Kind.INSERTED, Kind.INSERTED_OTHER),
    ):
        made = shelf.made(kind, control)
        found += [one for one, _ in zip(made, range(count), strict=False)]
    return found


class _Shelf:
    """The stored edits of one pair, by image and kind."""

    def __init__(self, reliance: "Reliance", name: str, side: int) -> None:
        self.reliance = reliance
        self.task: PairTask = reliance.tasks[name]
        rival = reliance.pairs[self.task.cls, self.task.cue].rival
        self.contrast = reliance.contrast(self.task.cls, rival)
        self.side = side
        table = pq.read_table(io.BytesIO(reliance.folder.root.child(name).read()))
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in table.to_pylist():
            if row["embedding"] is not None and row["fill"] in (None, _FILL):
                self.rows.setdefault((row["image_id"], row["kind"]), row)
        self.places = {str(row["image_id"]): row for row in (*self.task.images, *self.task.targets)}

    @cached_property
    def preprocess(self) -> Preprocess:
        """The run's, at about the wanted size."""
        own = self.reliance.results.preprocess
        times = max(1, round(self.side / max(self.grid)))
        return replace(own, size=(self.grid[0] * times, self.grid[1] * times))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the regions."""
        return self.reliance.results.grid

    def made(self, kind: Kind, control: Kind) -> Iterator[EditExample]:
        """Edits of a kind with their control, one after the other."""
        before_kind = Kind.ORIGINAL if kind is Kind.DELETED else Kind.TARGET
        for (image_id, own), row in self.rows.items():
            before = self.rows.get((image_id, before_kind))
            other = self.rows.get((image_id, control))
            if own != kind or before is None or other is None:
                continue
            pictures = [self._before(image_id), self._edited(row), self._edited(other)]
            shown = [Image.fromarray(p.transpose(1, 2, 0)) for p in pictures if p is not None]
            if len(shown) == len(pictures):
                changes = self._change(before, row), self._change(before, other)
                yield EditExample(image_id, kind, shown[0], shown[1], shown[2], *changes)

    def _before(self, image_id: str) -> NDArray[np.uint8] | None:
        row = self.places.get(image_id)
        if row is None:
            return None
        try:
            with Image.open(io.BytesIO(self.reliance.results.origin.fetch(row))) as image:
                return self.preprocess(to_rgb(image))
        except UsageError:
            return None

    def _edited(self, row: Mapping[str, Any]) -> NDArray[np.uint8] | None:
        pixels = self._before(row["image_id"])
        cells = np.frombuffer(row["region"], np.uint8).astype(bool).reshape(self.grid)
        mask = pixels_of(cells, self.preprocess.size)
        if pixels is None:
            return None
        if row["fill"] is not None:
            return surroundings(pixels, mask)
        giver = self._before(row["partner"])
        return None if giver is None else np.where(mask, giver, pixels)

    def _change(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
        moved = np.array(after["embedding"], np.float32) - np.array(before["embedding"], np.float32)
        return float(self.contrast.change([before["image_id"]], moved[None])[0])
