"""Pictures of the run's images, fetched from the source when a page shows them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from pipeline.errors import unknown_name
from pipeline.report.contents import Picture
from pipeline.report.shown_images import PICTURE_COLUMNS, copy_picture, grid_box
from pipeline.results import Results

SIDES = (192, 384, 1024)
"""Longer sides in which pictures are served, in pixels."""
_KEPT = 1000


@dataclass
class Pictures:
    """Small copies of images; the latest ones are kept in memory."""

    results: Results
    _rows: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)
    _copies: OrderedDict[tuple[str, int], Picture] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def rows(self, image_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Rows with `PICTURE_COLUMNS`, read at once for the images of a page.

        Raises:
            UnknownNameError: there is no such image.
        """
        with self._lock:
            missing = [name for name in dict.fromkeys(image_ids) if name not in self._rows]
            table = self.results.rows.select(missing, list(PICTURE_COLUMNS)) if missing else None
            for name, row in zip(missing, table.to_pylist() if table else [], strict=True):
                if row["image_id"] is None:
                    raise unknown_name("image", name, [], self.results.uri)
                self._rows[name] = row
            found = [self._rows[name] for name in image_ids]
            _forget(self._rows, 10 * _KEPT)
            return found

    def outline(self, row: dict[str, Any]) -> Picture:
        """Size and box of an image, without its picture."""
        size = (int(row["width"] or 1), int(row["height"] or 1))
        return Picture(None, size, grid_box(self.results.preprocess, size))

    def copy(self, image_id: str, side: int) -> Picture:
        """A copy; without data, and with the reason, where the source no longer has the image.

        Raises:
            UnknownNameError: there is no such image.
        """
        key = (image_id, side)
        with self._lock:
            if key in self._copies:
                return self._copies[key]
        made = copy_picture(self.results, self.rows([image_id])[0], side)
        if made.data is not None:  # what cannot be read now may be readable later
            with self._lock:
                self._copies[key] = made
                _forget(self._copies, _KEPT)
        return made


def _forget(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
