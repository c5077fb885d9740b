"""The edits of a pair, repeated for the user's own classifier.

Regions, fills, donors and controls are those of the vision-language run, whose file of edits names
them. The classifier may resize images differently, so an edited region is transferred: a pixel of
the classifier's input that shows an edited cell takes the value that the edit gave to the same
position in the picture, and every other pixel keeps the classifier's own value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from legrad.method.explainer import LeGrad
from legrad.models.classifier import Classifier
from legrad.preprocess import Preprocess
from pipeline.errors import UsageError
from pipeline.reliance.edits import Kind, edits_schema, read_edits, write_edits
from pipeline.reliance.regions import FILLS, Cells, Pixels, cells_of, pixels_of
from pipeline.reliance.shortlist import PairTask
from pipeline.results.reproduce import pixels_again
from pipeline.sources.fetch import Origin
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings
from pipeline.storage.location import Location

HEAT = "heat"
"""Column: mean heat of the class on the cue's region, 1 = average; only for unchanged images."""
_KINDS = (
    *(Kind.ORIGINAL, Kind.DELETED, Kind.DELETED_ELSEWHERE),
    *(Kind.TARGET, Kind.INSERTED, Kind.INSERTED_OTHER),
)
_BATCH = 32
Fetch = Callable[[Mapping[str, Any], Preprocess], Pixels | str]
"""A row of `IMAGE_COLUMNS` and a preprocessing -> pixels (3, height, width), or the error."""


@dataclass(frozen=True)
class ClassifierJob:
    """What every replica of the classifier needs.

    Attributes:
        settings: how to load the classifier.
        digest: digest that its weights must have.
        layers: number of last blocks that are explained.
        preprocess: preprocessing of the vision-language run, in whose input the regions are.
        grid: (h, w) of the regions.
        origin: source of the images.
        decoding: how images are decoded.
        folder: folder of the files of edits.
    """

    settings: ReplicaSettings
    digest: str
    layers: int
    preprocess: Preprocess
    grid: tuple[int, int]
    origin: Origin
    decoding: Decoding
    folder: Location

    def file(self, edits: str) -> str:
        """Name of the file of logits that belongs to a file of edits."""
        return f"logits-{self.digest[:16]}-{edits}"


class ClassifierStage:
    """An actor of Ray Data that writes the logits of a pair's edits and returns its counts."""

    def __init__(self, job: ClassifierJob) -> None:
        model = job.settings.load()
        if not isinstance(model, Classifier):
            raise TypeError(f"expected a classifier, found {type(model).__name__}")
        if model.digest != job.digest:
            raise UsageError(f"{job.settings.model.name} has other weights here than in the run")
        self.job = job
        self.replay = Replay(model, job.layers, job.preprocess, job.grid, self._fetch)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Classify the edits of a batch of one row: ``task`` (JSON) and ``name`` of its edits."""
        task, name = PairTask.from_json(str(batch["task"][0])), str(batch["name"][0])
        table = self.replay(task, read_edits(self.job.folder.child(name)))
        write_edits(self.job.folder.child(self.job.file(name)), table)
        lost = table["error"].length() - table["error"].null_count
        return {
            "class": np.array([task.cls]),
            "cue": np.array([task.cue]),
            "lost": np.array([lost]),
        }

    def _fetch(self, row: Mapping[str, Any], preprocess: Preprocess) -> Pixels | str:
        return pixels_again(self.job.origin, row, preprocess, self.job.decoding)


@dataclass(frozen=True)
class _Picture:
    """An image as both models see it.

    Attributes:
        theirs: (3, H, W) pixels of the vision-language model's input.
        own: (3, height, width) pixels of the classifier's input.
        rows, columns: (height,), (width,) which row and column of ``theirs`` a pixel of ``own``
            shows; -1 where ``theirs`` does not show it.
    """

    theirs: Pixels
    own: Pixels
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def mask(self, cells: Cells) -> NDArray[np.bool_]:
        """(height, width) pixels of ``own`` that show some cells."""
        shown = (self.rows >= 0)[:, None] & (self.columns >= 0)
        pixels = pixels_of(cells, (self.theirs.shape[1], self.theirs.shape[2]))
        carried: NDArray[np.bool_] = pixels[self.rows][:, self.columns] & shown
        return carried

    def edited(self, theirs: Pixels, cells: Cells) -> Pixels:
        """``own`` with the pixels of some cells taken from an edit of ``theirs``."""
        carried = theirs[:, self.rows][:, :, self.columns]
        return np.where(self.mask(cells), carried, self.own)


class Replay:
    """Makes the edits of a pair for the classifier; gives its logits in place of embeddings.

    Args:
        model: the classifier.
        layers: number of last blocks that are explained.
        preprocess: preprocessing of the vision-language run, in whose input the regions are.
        grid: (h, w) of the regions.
        fetch: fetches an image.
    """

    def __init__(
        self,
        model: Classifier,
        layers: int,
        preprocess: Preprocess,
        grid: tuple[int, int],
        fetch: Fetch,
    ) -> None:
        self.model, self.preprocess, self.grid, self.fetch = model, preprocess, grid, fetch
        self.legrad = LeGrad(model, layers)

    def __call__(self, task: PairTask, edits: pa.Table) -> pa.Table:
        """A table as `edits_schema` has it, its embeddings the logits, and the column `HEAT`.

        Args:
            task: the pair.
            edits: its edits by the vision-language model.
        """
        failures: dict[str, str] = {}
        pictures = dict(self._pictures([*task.images, *task.targets], failures))
        rows = [row for row in _described(edits) if row["kind"] in _KINDS]
        rows = [row for row in rows if {row["image_id"], *_donor(row)} <= pictures.keys()]
        regions = {
            row["image_id"]: _cells(row, self.grid) for row in rows if row["kind"] == Kind.DELETED
        }
        heat = self._heat(task.cls, pictures, regions)
        logits = self._logits([self._pixels(row, pictures) for row in rows])
        kind = str(Kind.ORIGINAL)
        lost = [{"image_id": name, "kind": kind, "error": why} for name, why in failures.items()]
        for row, values in zip(rows, logits, strict=True):
            row["embedding"] = values
            row[HEAT] = heat.get(row["image_id"]) if row["kind"] == Kind.ORIGINAL else None
        schema = edits_schema(len(self.model.classes), int(np.prod(self.grid)))
        return pa.Table.from_pylist([*rows, *lost], schema.append(pa.field(HEAT, pa.float32())))

    def _pictures(
        self, rows: Sequence[Mapping[str, Any]], failures: dict[str, str]
    ) -> Iterator[tuple[str, _Picture]]:
        for row in rows:
            both = [
                self.fetch(row, preprocess)
                for preprocess in dict.fromkeys((self.preprocess, self.model.preprocess))
            ]
            theirs, own = both[0], both[-1]
            if isinstance(theirs, str) or isinstance(own, str):
                failures[row["image_id"]] = str(theirs if isinstance(theirs, str) else own)
                continue
            size = (row["width"], row["height"])
            places = positions(self.model.preprocess, self.preprocess, size)
            yield row["image_id"], _Picture(theirs, own, *places)

    def _pixels(self, row: Mapping[str, Any], pictures: Mapping[str, _Picture]) -> Pixels:
        """The classifier's input for one edit."""
        picture = pictures[row["image_id"]]
        if row["region"] is None:
            return picture.own
        cells = _cells(row, self.grid)
        mask = pixels_of(cells, self.preprocess.size)
        if row["fill"]:
            return picture.edited(FILLS[row["fill"]](picture.theirs, mask), cells)
        return picture.edited(pictures[row["partner"]].theirs, cells)

    def _logits(self, inputs: Sequence[Pixels]) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(inputs), _BATCH):
            pixels = torch.from_numpy(np.stack(inputs[start : start + _BATCH]))
            yield from self.model.logits(pixels).float().cpu().numpy()

    def _heat(
        self, cls: str, pictures: Mapping[str, _Picture], regions: Mapping[str, Cells]
    ) -> dict[str, float]:
        """Mean heat of the class on each image's region, relative to its mean; by image_id."""
        names = list(regions) if cls in self.model.classes else []
        heat: dict[str, float] = {}
        for start in range(0, len(names), _BATCH):
            part = names[start : start + _BATCH]
            pixels = torch.from_numpy(np.stack([pictures[name].own for name in part]))
            height, width = self.model.preprocess.size
            shown = self.legrad.explain(pixels, classes=[cls], sizes=[(width, height)] * len(part))
            for name, grid in zip(part, shown.maps[:, 0].float().cpu().numpy(), strict=True):
                cells = cells_of(pictures[name].mask(regions[name]), self.model.grid)
                if cells.any() and grid.mean() > 0:
                    heat[name] = float(grid[cells].mean() / grid.mean())
        return heat


def positions(
    own: Preprocess, other: Preprocess, size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of one input that the pixels of another show; -1 where it does not.

    Args:
        own: preprocessing of the input whose pixels are asked about.
        other: preprocessing of the input to which the rows and columns belong.
        size: width and height of the image, upright, in pixels.
    """
    own_box, other_box = own.box(*size), other.box(*size)
    indices = []
    for axis in (1, 0):  # rows, then columns
        count, others = own.size[1 - axis], other.size[1 - axis]
        start, stop = own_box[axis], own_box[axis + 2]
        places = start + (np.arange(count) + 0.5) / count * (stop - start)
        first, last = other_box[axis], other_box[axis + 2]
        index = np.floor((places - first) / (last - first) * others).astype(np.int64)
        indices.append(np.where((index >= 0) & (index < others), index, -1))
    return indices[0], indices[1]


def _described(edits: pa.Table) -> list[dict[str, Any]]:
    """The edits that were embedded, without their embeddings."""
    kept = edits.filter(edits["embedding"].is_valid())
    rows: list[dict[str, Any]] = kept.drop_columns(["embedding"]).to_pylist()
    return rows


def _cells(row: Mapping[str, Any], grid: tuple[int, int]) -> Cells:
    return np.frombuffer(row["region"], np.uint8).reshape(grid).astype(bool)


def _donor(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The image that an insertion takes pixels from."""
    return (row["partner"],) if row["kind"] in (Kind.INSERTED, Kind.INSERTED_OTHER) else ()
