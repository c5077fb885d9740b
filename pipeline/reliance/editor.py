"""Edit images and embed what came out: one model, one pair of class and cue at a time."""

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
from pipeline.reliance.fills import FILLS, Pixels
from pipeline.reliance.regions import Cells, elsewhere, hottest, pixels_of
from pipeline.reliance.task import Kind, PairTask, edits_schema

Fetch = Callable[[Mapping[str, Any]], Pixels | str]
"""A row of `PLACE` -> uint8 pixels (3, height, width) of the input, or why there are none."""
Masks = Callable[[str, str], Cells | None]
"""Cue and image_id -> (h, w) true cells of the cue, or None where they are not known."""


@dataclass(frozen=True)
class Found:
    """An image and where things are in it.

    Attributes:
        image_id: its id.
        pixels: (3, height, width).
        regions: cue -> its cells.
        object: cells of the class.
        taken: cells that a control must not touch: the object, all cues that are there, padding.
    """

    image_id: str
    pixels: Pixels
    regions: Mapping[str, Cells]
    object: Cells
    taken: Cells


@dataclass(frozen=True)
class _Edit:
    image_id: str
    kind: Kind
    pixels: Pixels
    region: Cells | None = None
    fill: str | None = None
    partner: str | None = None


class Editor:
    """Makes the edits of a pair.

    Args:
        model: that explains and embeds.
        layers: last blocks that are explained to find the regions: as in the run.
        directions: query -> (E,), of all cues and classes.
        config: shares and seeds.
        fetch: gives an image.
        masks: gives true masks.
        batch_size: images at once.
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
        """All edits of a pair, embedded; a row of `edits_schema` each.

        An image that cannot be fetched is one row with an error.
        """
        failures: dict[str, str] = {}
        found = list(self._find(task, task.images, failures))
        targets = list(self._find(task, task.targets, failures))
        edits = list(_original(found, Kind.ORIGINAL))
        edits += [edit for one in found for edit in self._deletions(one, task)]
        edits += _original(targets, Kind.TARGET)
        edits += self._insertions(found, targets, task.cue)
        return self._table(edits, failures)

    def _find(
        self, task: PairTask, rows: Sequence[Mapping[str, Any]], failures: dict[str, str]
    ) -> Iterator[Found]:
        for start in range(0, len(rows), self.batch_size):
            some, pixels = [], []
            for row in rows[start : start + self.batch_size]:
                fetched = self.fetch(row)
                if isinstance(fetched, str):
                    failures[row["image_id"]] = fetched
                else:
                    some.append(row)
                    pixels.append(fetched)
            if some:
                yield from self._located(task, some, np.stack(pixels))

    def _located(
        self, task: PairTask, rows: Sequence[Mapping[str, Any]], pixels: NDArray[np.uint8]
    ) -> Iterator[Found]:
        """Where cue, class and other cues are, by their maps."""
        cues = list(
            dict.fromkeys([task.cue, *task.partners, *(c for r in rows for c in r["others"])])
        )
        names = [*cues, *([task.own] if task.own else [])]
        asked = torch.from_numpy(np.stack([self.directions[name] for name in names]))
        sizes = [(row["width"], row["height"]) for row in rows]
        heat = self.legrad.explain(torch.from_numpy(pixels), asked, sizes=sizes).maps
        maps = heat.float().cpu().numpy()
        for row, image, own in zip(rows, pixels, maps, strict=True):
            shown = np.zeros(self.model.grid, bool)
            shown[self.model.preprocess.cells(row["width"], row["height"], self.model.grid)] = True
            by_name = dict(zip(names, own, strict=True))
            regions = {
                cue: self._region(cue, row["image_id"], by_name[cue], shown)
                for cue in dict.fromkeys([task.cue, *task.partners, *row["others"]])
            }
            body = np.zeros_like(shown)
            if task.own:
                share, floor = self.config.object_region, self.config.floor
                body = hottest(by_name[task.own], share, shown, floor)
            there = [regions[cue] for cue in (task.cue, *row["others"])]
            taken = body | ~shown | np.logical_or.reduce(there)
            yield Found(row["image_id"], image, regions, body, taken)

    def _region(self, cue: str, image_id: str, heat: NDArray[np.float32], shown: Cells) -> Cells:
        mask = self.masks(cue, image_id)
        if mask is not None:
            return mask & shown
        return hottest(heat, self.config.region, shown, self.config.floor)

    def _deletions(self, one: Found, task: PairTask) -> Iterator[_Edit]:
        region = one.regions[task.cue]
        whole = list(self._pair(one, region, (Kind.DELETED, Kind.DELETED_ELSEWHERE)))
        yield from whole
        spared, kinds = region & ~one.object, (Kind.SPARED, Kind.SPARED_ELSEWHERE)
        if (spared != region).any():
            yield from self._pair(one, spared, kinds)
        else:
            same = dict(zip((Kind.DELETED, Kind.DELETED_ELSEWHERE), kinds, strict=True))
            yield from (replace(edit, kind=same[edit.kind]) for edit in whole)
        for partner in task.partners:
            joint = region | one.regions[partner]
            kinds = (Kind.JOINT, Kind.JOINT_ELSEWHERE)
            yield from self._pair(one, joint, kinds, partner)

    def _pair(
        self, one: Found, region: Cells, kinds: tuple[Kind, Kind], partner: str | None = None
    ) -> Iterator[_Edit]:
        """A deletion and its control, in every fill; nothing where the control has no place."""
        rng = np.random.default_rng(list(one.image_id.encode()))
        other = elsewhere(region, one.taken, rng)
        if other is None:
            return
        for kind, cells in zip(kinds, (region, other), strict=True):
            mask = pixels_of(cells, self.model.preprocess.size)
            for fill, paint in FILLS.items():
                yield _Edit(one.image_id, kind, paint(one.pixels, mask), cells, fill, partner)

    def _insertions(
        self, donors: Sequence[Found], targets: Sequence[Found], cue: str
    ) -> Iterator[_Edit]:
        """The cue's region of a donor on a target; as control, the same cells of another target."""
        usable = [donor for donor in donors if donor.regions[cue].any()]
        if not usable or len(targets) < 2:
            return
        for number, target in enumerate(targets):
            donor = usable[number % len(usable)]
            other = targets[(number + 1) % len(targets)]
            cells = donor.regions[cue]
            mask = pixels_of(cells, self.model.preprocess.size)
            for kind, giver in ((Kind.INSERTED, donor), (Kind.INSERTED_OTHER, other)):
                pixels = np.where(mask, giver.pixels, target.pixels)
                yield _Edit(target.image_id, kind, pixels, cells, partner=giver.image_id)

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
        nothing = [None] * len(lost)
        schema = edits_schema(width, cells)
        columns = [
            [*(edit.image_id for edit in edits), *lost],
            [*(str(edit.kind) for edit in edits), *([str(Kind.ORIGINAL)] * len(lost))],
            [*(edit.partner for edit in edits), *nothing],
            [*(edit.fill for edit in edits), *nothing],
            [*regions, *nothing],
            embedded,
            [*([None] * count), *failures.values()],
        ]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, schema, strict=True)
        ]
        return pa.table(arrays, schema=schema)

    def _embedded(self, edits: Sequence[_Edit], width: int) -> NDArray[np.float32]:
        """(n, E) of each edit; pictures that several edits share are embedded once."""
        different = {id(edit.pixels): edit.pixels for edit in edits}
        pictures, parts = list(different.values()), [np.zeros((0, width), np.float32)]
        for start in range(0, len(pictures), self.batch_size):
            some = np.stack(pictures[start : start + self.batch_size])
            parts.append(self.model.encode_image(torch.from_numpy(some)).float().cpu().numpy())
        rows = {key: row for row, key in enumerate(different)}
        places = np.array([rows[id(edit.pixels)] for edit in edits], dtype=np.int64)
        result: NDArray[np.float32] = np.concatenate(parts)[places]
        return result


def _original(found: Sequence[Found], kind: Kind) -> Iterator[_Edit]:
    return (_Edit(one.image_id, kind, one.pixels) for one in found)
