"""The effect of each edit of a pair, image by image, as a table and as pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from legrad.preprocess import Preprocess
from pipeline.audit.inference import Array
from pipeline.reliance.claims import Claims, EditedPair
from pipeline.reliance.edits import Kind, Vectors
from pipeline.reliance.probe import FOLDS, Probe, groups
from pipeline.reliance.regions import pixels_of, surroundings
from pipeline.reliance.shortlist import PairTask
from pipeline.results.reproduce import pixels_again
from pipeline.results.results import Results
from pipeline.stages.decode import Decoding

_SHOWN_FILL = "surroundings"
COLUMNS = (
    "image_id",
    "kind",
    "counts",
    "cue_before",
    "cue_after",
    "probe_change",
    "control_change",
)


class ProbeContrast:
    """The probe's logit of a class against its rival, in shares of the distance of their means.

    Args:
        probes: for each fold, the probe that was not fitted to it.
        cls, rival: codes of the classes.
    """

    def __init__(self, probes: Sequence[Probe], cls: int, rival: int) -> None:
        pair = np.array([cls]), np.array([rival])
        lines = np.concatenate([probe.direction(*pair) for probe in probes])
        gaps = [
            float(line @ (probe.means[cls] - probe.means[rival]))
            for line, probe in zip(lines, probes, strict=True)
        ]
        self.lines = lines / np.where(np.array(gaps) > 0, gaps, np.nan)[:, None]

    def change(self, image_ids: Sequence[str], moved: Vectors) -> Array:
        """(n,) change of the logit for images whose embeddings moved by (n, E)."""
        fold = groups(list(image_ids)) % FOLDS if len(image_ids) else np.zeros(0, np.int64)
        result: Array = np.einsum("ne,ne->n", self.lines[fold], moved)
        return result


def per_image(claims: Claims, pair: EditedPair, contrast: ProbeContrast) -> pd.DataFrame:
    """The effect of each edit of a pair on the probe that was not fitted to the image.

    Returns:
        One row per edited image: ``image_id``; ``kind`` (`Kind.DELETED`, `Kind.INSERTED`);
        ``counts``: whether the cue was really removed or inserted; ``cue_before``, ``cue_after``:
        its score (cosine), mean over the fills; ``probe_change``, ``control_change``: change of
        the logit of class against rival by the edit and by its control, in shares of the distance
        between the classes, mean over the fills.
    """
    text = claims.directions.cues[pair.cue]
    deleted, inserted = pair.edits.deleted, pair.edits.inserted
    parts = [
        _rows(
            deleted.ids,
            Kind.DELETED,
            claims.removed(pair, deleted),
            (deleted.before @ text, (deleted.without @ text).mean(axis=0)),
            [
                contrast.change(deleted.ids, after.mean(axis=0) - deleted.before)
                for after in (deleted.without, deleted.control)
            ],
        ),
        _rows(
            inserted.ids,
            Kind.INSERTED,
            claims.appeared(pair),
            (inserted.before @ text, inserted.inserted @ text),
            [
                contrast.change(inserted.ids, after - inserted.before)
                for after in (inserted.inserted, inserted.control)
            ],
        ),
    ]
    return pd.concat(parts, ignore_index=True)


def _rows(
    ids: Sequence[str],
    kind: Kind,
    counts: NDArray[np.bool_],
    scores: tuple[Vectors, Vectors],
    changes: list[Array],
) -> pd.DataFrame:
    values = [list(ids), [str(kind)] * len(ids), counts, *scores, *changes]
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


@dataclass(frozen=True)
class EditExample:
    """One image and one edit of it.

    Attributes:
        image_id: id of the image.
        kind: `Kind.DELETED` or `Kind.INSERTED`.
        before, after, control: pictures; in the control the same shape is deleted elsewhere, or a
            crop without the cue is inserted.
        change, control_change: change of the probe's logit of the class against its rival by the
            edit and by its control, see `ProbeContrast`.
    """

    image_id: str
    kind: Kind
    before: Image.Image
    after: Image.Image
    control: Image.Image
    change: float
    control_change: float


class EditPictures:
    """Pictures of the stored edits of one pair.

    Args:
        results: results of the run.
        task: images and targets of the pair.
        table: stored edits of the pair, see `edits_schema`.
        contrast: the class against its rival.
        side: approximate size of the pictures in pixels.
    """

    def __init__(
        self, results: Results, task: PairTask, table: pa.Table, contrast: ProbeContrast, side: int
    ) -> None:
        self.results = results
        self.contrast = contrast
        self.side = side
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in table.to_pylist():
            if row["embedding"] is not None and row["fill"] in (None, _SHOWN_FILL):
                self.rows.setdefault((row["image_id"], row["kind"]), row)
        self.images = {str(row["image_id"]): row for row in (*task.images, *task.targets)}
        self._fetched: dict[str, NDArray[np.uint8] | None] = {}

    @cached_property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the run, at about the wanted size of the pictures."""
        times = max(1, round(self.side / max(self.grid)))
        return replace(self.results.preprocess, size=(self.grid[0] * times, self.grid[1] * times))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the regions."""
        return self.results.grid

    def examples(self, kind: Kind, control: Kind) -> Iterator[EditExample]:
        """Edits of a kind with their controls; images that cannot be fetched are left out."""
        before_kind = Kind.ORIGINAL if kind is Kind.DELETED else Kind.TARGET
        for (image_id, row_kind), row in self.rows.items():
            before = self.rows.get((image_id, before_kind))
            control_row = self.rows.get((image_id, control))
            if row_kind != kind or before is None or control_row is None:
                continue
            pictures = [self._before(image_id), self._edited(row), self._edited(control_row)]
            shown = [Image.fromarray(p.transpose(1, 2, 0)) for p in pictures if p is not None]
            if len(shown) == len(pictures):
                changes = self._change(before, row), self._change(before, control_row)
                yield EditExample(image_id, kind, shown[0], shown[1], shown[2], *changes)

    def _before(self, image_id: str) -> NDArray[np.uint8] | None:
        """(3, height, width) an unchanged image, fetched once; None if that is not possible."""
        if image_id not in self._fetched:
            row = self.images.get(image_id)
            found = "" if row is None else self._fetch(row)
            self._fetched[image_id] = None if isinstance(found, str) else found
        return self._fetched[image_id]

    def _fetch(self, row: Mapping[str, Any]) -> NDArray[np.uint8] | str:
        decoding = Decoding.of_run(self.results.run["identity"])
        return pixels_again(self.results.origin, row, self.preprocess, decoding)

    def _edited(self, row: Mapping[str, Any]) -> NDArray[np.uint8] | None:
        pixels = self._before(row["image_id"])
        cells = np.frombuffer(row["region"], np.uint8).astype(bool).reshape(self.grid)
        mask = pixels_of(cells, self.preprocess.size)
        if pixels is None:
            return None
        if row["fill"] is not None:
            return surroundings(pixels, mask)
        donor = self._before(row["partner"])
        return None if donor is None else np.where(mask, donor, pixels)

    def _change(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
        moved = np.array(after["embedding"], np.float32) - np.array(before["embedding"], np.float32)
        return float(self.contrast.change([before["image_id"]], moved[None])[0])
