"""Edit the images of one pair of class and cue, and embed the results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from legrad.method.explainer import LeGrad
from legrad.models.vision_language import VisionLanguageModel
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance.edits import Kind, edits_schema
from pipeline.reliance.regions import FILLS, Cells, Pixels, elsewhere, hottest, pixels_of
from pipeline.reliance.shortlist import PairTask

Fetch = Callable[[Mapping[str, Any]], Pixels | str]
"""A row of `IMAGE_COLUMNS` -> pixels (3, height, width) of the model's input, or the error."""
Masks = Callable[[str, str], Cells | None]
"""Cue and image_id -> (h, w) true cells of the cue, or None if they are not known."""


@dataclass(frozen=True)
class Located:
    """An image with the regions of its cues and of its object.

    Attributes:
        image_id: its id.
        pixels: (3, height, width).
        regions: cue -> (h, w) its cells.
        object: (h, w) cells of the class.
        taken: (h, w) cells that a control must not touch: the object, the cues of the image, and
            padding.
    """

    image_id: str
    pixels: Pixels
    regions: Mapping[str, Cells]
    object: Cells
    taken: Cells


@dataclass(frozen=True)
class _Edit:
    """An edited image before it is embedded; the fields are columns of `edits_schema`."""

    image_id: str
    kind: Kind
    pixels: Pixels
    region: Cells | None = None
    fill: str | None = None
    partner: str | None = None


class Editor:
    """Makes and embeds the edits of a pair.

    Args:
        model: explains the images to find the regions, and embeds the edits.
        layers: number of last blocks that are explained, as in the run.
        directions: query -> (E,) direction, of all cues and classes.
        config: sizes of the regions.
        fetch: fetches an image.
        masks: gives the true masks, where they are known.
        batch_size: number of images in a forward pass.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        layers: int,
        directions: Mapping[str, NDArray[np.float32]],
        config: RelianceConfig,
        fetch: Fetch,
        masks: Masks = lambda cue, image_id: None,
        batch_size: int = 32,
    ) -> None:
        self.model = model
        self.legrad = LeGrad(model, layers)
        self.directions = directions
        self.config = config
        self.fetch = fetch
        self.masks = masks
        self.batch_size = batch_size

    def edit(self, task: PairTask) -> pa.Table:
        """All embedded edits of a pair, a table with `edits_schema`.

        An image that cannot be fetched is one row with an error.
        """
        failures: dict[str, str] = {}
        images = list(self._locate(task, task.images, failures))
        targets = list(self._locate(task, task.targets, failures))
        edits = list(_unchanged(images, Kind.ORIGINAL))
        edits += [edit for image in images for edit in self._deletions(image, task)]
        edits += _unchanged(targets, Kind.TARGET)
        edits += self._insertions(images, targets, task.cue)
        return self._table(edits, failures)

    def _locate(
        self, task: PairTask, rows: Sequence[Mapping[str, Any]], failures: dict[str, str]
    ) -> Iterator[Located]:
        """Fetch and locate images in batches; images that cannot be fetched go to ``failures``."""
        for start in range(0, len(rows), self.batch_size):
            batch, pixels = [], []
            for row in rows[start : start + self.batch_size]:
                fetched = self.fetch(row)
                if isinstance(fetched, str):
                    failures[row["image_id"]] = fetched
                else:
                    batch.append(row)
                    pixels.append(fetched)
            if batch:
                yield from self._located(task, batch, np.stack(pixels))

    def _located(
        self, task: PairTask, rows: Sequence[Mapping[str, Any]], pixels: NDArray[np.uint8]
    ) -> Iterator[Located]:
        """Find the regions of the cues and the class by their maps."""
        cues = list(
            dict.fromkeys([task.cue, *task.partners, *(c for r in rows for c in r["others"])])
        )
        names = [*cues, *([task.own] if task.own else [])]
        directions = torch.from_numpy(np.stack([self.directions[name] for name in names]))
        sizes = [(row["width"], row["height"]) for row in rows]
        heat = self.legrad.explain(torch.from_numpy(pixels), directions, sizes=sizes).maps
        maps = heat.float().cpu().numpy()
        for row, image, maps_of_image in zip(rows, pixels, maps, strict=True):
            shown = np.zeros(self.model.grid, bool)
            shown[self.model.preprocess.cells(row["width"], row["height"], self.model.grid)] = True
            by_name = dict(zip(names, maps_of_image, strict=True))
            regions = {
                cue: self._region(cue, row["image_id"], by_name[cue], shown)
                for cue in dict.fromkeys([task.cue, *task.partners, *row["others"]])
            }
            body = np.zeros_like(shown)
            if task.own:
                share, floor = self.config.object_region, self.config.floor
                body = hottest(by_name[task.own], share, shown, floor)
            present = [regions[cue] for cue in (task.cue, *row["others"])]
            taken = body | ~shown | np.logical_or.reduce(present)
            yield Located(row["image_id"], image, regions, body, taken)

    def _region(self, cue: str, image_id: str, heat: NDArray[np.float32], shown: Cells) -> Cells:
        mask = self.masks(cue, image_id)
        if mask is not None:
            return mask & shown
        return hottest(heat, self.config.region, shown, self.config.floor)

    def _deletions(self, image: Located, task: PairTask) -> Iterator[_Edit]:
        region = image.regions[task.cue]
        whole = list(self._with_control(image, region, (Kind.DELETED, Kind.DELETED_ELSEWHERE)))
        yield from whole
        spared, kinds = region & ~image.object, (Kind.SPARED, Kind.SPARED_ELSEWHERE)
        if (spared != region).any():
            yield from self._with_control(image, spared, kinds)
        else:
            same = dict(zip((Kind.DELETED, Kind.DELETED_ELSEWHERE), kinds, strict=True))
            yield from (replace(edit, kind=same[edit.kind]) for edit in whole)
        for partner in task.partners:
            joint = region | image.regions[partner]
            kinds = (Kind.JOINT, Kind.JOINT_ELSEWHERE)
            yield from self._with_control(image, joint, kinds, partner)

    def _with_control(
        self, image: Located, region: Cells, kinds: tuple[Kind, Kind], partner: str | None = None
    ) -> Iterator[_Edit]:
        """A deletion and its control by every fill; nothing if the control fits nowhere."""
        rng = np.random.default_rng(list(image.image_id.encode()))
        other = elsewhere(region, image.taken, rng)
        if other is None:
            return
        for kind, cells in zip(kinds, (region, other), strict=True):
            mask = pixels_of(cells, self.model.preprocess.size)
            for fill, paint in FILLS.items():
                yield _Edit(image.image_id, kind, paint(image.pixels, mask), cells, fill, partner)

    def _insertions(
        self, donors: Sequence[Located], targets: Sequence[Located], cue: str
    ) -> Iterator[_Edit]:
        """Paste the cue's region of a donor, and as control the same cells of another target."""
        usable = [donor for donor in donors if donor.regions[cue].any()]
        if not usable or len(targets) < 2:
            return
        for number, target in enumerate(targets):
            donor = usable[number % len(usable)]
            other = targets[(number + 1) % len(targets)]
            cells = donor.regions[cue]
            mask = pixels_of(cells, self.model.preprocess.size)
            for kind, source in ((Kind.INSERTED, donor), (Kind.INSERTED_OTHER, other)):
                pixels = np.where(mask, source.pixels, target.pixels)
                yield _Edit(target.image_id, kind, pixels, cells, partner=source.image_id)

    def _table(self, edits: Sequence[_Edit], failures: Mapping[str, str]) -> pa.Table:
        width, cells = self.model.tower.embed_dim, int(np.prod(self.model.grid))
        vectors = self._embedded(edits, width)
        lost, count = list(failures), len(edits)
        flat = pa.array(np.concatenate([vectors.ravel(), np.zeros(len(lost) * width, np.float32)]))
        embedded = pa.FixedSizeListArray.from_arrays(
            flat, width, mask=pa.array([False] * count + [True] * len(lost), pa.bool_())
        )
        regions = [
            None if edit.region is None else edit.region.astype(np.uint8).tobytes()
            for edit in edits
        ]
        nulls = [None] * len(lost)
        schema = edits_schema(width, cells)
        columns = [
            [*(edit.image_id for edit in edits), *lost],
            [*(str(edit.kind) for edit in edits), *([str(Kind.ORIGINAL)] * len(lost))],
            [*(edit.partner for edit in edits), *nulls],
            [*(edit.fill for edit in edits), *nulls],
            [*regions, *nulls],
            embedded,
            [*([None] * count), *failures.values()],
        ]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, schema, strict=True)
        ]
        return pa.table(arrays, schema=schema)

    def _embedded(self, edits: Sequence[_Edit], width: int) -> NDArray[np.float32]:
        """(n, E) embedding of each edit; pictures that several edits share are embedded once."""
        different = {id(edit.pixels): edit.pixels for edit in edits}
        pictures, parts = list(different.values()), [np.zeros((0, width), np.float32)]
        for start in range(0, len(pictures), self.batch_size):
            batch = np.stack(pictures[start : start + self.batch_size])
            parts.append(self.model.encode_image(torch.from_numpy(batch)).float().cpu().numpy())
        rows = {key: row for row, key in enumerate(different)}
        order = np.array([rows[id(edit.pixels)] for edit in edits], dtype=np.int64)
        result: NDArray[np.float32] = np.concatenate(parts)[order]
        return result


def _unchanged(images: Sequence[Located], kind: Kind) -> Iterator[_Edit]:
    return (_Edit(image.image_id, kind, image.pixels) for image in images)
