"""Choose layers, texts and resizing by the fidelity of the maps on a user's images."""

import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from legrad.heatmaps import upsample
from legrad.method.explainer import LeGrad
from legrad.models.classifier import Classifier
from legrad.models.vision_model import VisionModel
from legrad.preprocess import Preprocess, ResizeMode
from legrad.queries.query import Query, Role
from pipeline.config import RunConfig
from pipeline.errors import UsageError, counted
from pipeline.fidelity.estimates import Array, Estimate, estimate
from pipeline.fidelity.perturbation import areas
from pipeline.fidelity.pictures import Inputs, Picture, draw_pictures
from pipeline.fidelity.segmentation import compared
from pipeline.machine import cores
from pipeline.stages.replica import ReplicaSettings, directions_of

_BATCH = 18


@dataclass(frozen=True)
class Variant:
    """One way to compute maps.

    Attributes:
        layers: number of last blocks that are explained.
        distinct: whether texts are made distinct from the other texts, see
            `legrad.queries.distinct`; None for a classifier, which has no texts.
        resize: how an image is resized to the model's input.
    """

    layers: int
    distinct: bool | None
    resize: ResizeMode

    def __str__(self) -> str:
        texts = {True: ["distinct texts"], False: ["plain texts"], None: []}[self.distinct]
        return ", ".join([counted(self.layers, "layer"), *texts, self.resize])


@dataclass(frozen=True)
class Wanted:
    """The images and variants to compare.

    Attributes:
        images: number of images.
        layers: numbers of last blocks; None for all.
        resize: ways of resizing; empty for the one in the settings.
        masks: folder or URI with ``QUERY/STEM.png``, white where the image with that file name
            shows what the query names; None for no masks.
    """

    images: int
    layers: Sequence[int | None]
    resize: Sequence[ResizeMode] = ()
    masks: str | None = None


@dataclass(frozen=True)
class Measured:
    """The figures of one variant.

    Attributes:
        variant: the variant.
        areas: (N, 2) negative and positive area of every image, see `perturbation`.
        masked: (M, 10) comparison with every mask, see `segmentation.compared`.
        accuracy: share of the images for which the model predicts the explained class, in percent.
        seconds: mean time per map.
    """

    variant: Variant
    areas: Array
    masked: Array
    accuracy: float
    seconds: float

    @property
    def gap(self) -> Array:
        """(N,) negative minus positive area: how far the answer depends on where the heat is."""
        gap: Array = self.areas[:, 0] - self.areas[:, 1]
        return gap


@dataclass(frozen=True)
class Evaluation:
    """The figures of all variants over the same images.

    Attributes:
        measured: the variants, the one of the settings first.
        images: number of images N.
        labelled: number of images with the label of a class; for the others the predicted class
            is explained.
        failed: number of rows that were read but could not be decoded.
        notes: variants that do not exist for these texts, and warnings of the model.
    """

    measured: tuple[Measured, ...]
    images: int
    labelled: int
    failed: int
    notes: tuple[str, ...]

    @property
    def best(self) -> Measured:
        """The variant with the largest mean gap."""
        return max(self.measured, key=lambda figures: float(figures.gap.mean()))

    def gain(self) -> Estimate:
        """The best variant's gap minus that of the settings, paired over images.

        The interval is widened for choosing the best of several (Bonferroni).
        """
        level = 1 - 0.05 / max(1, len(self.measured) - 1)
        return estimate(self.best.gap - self.measured[0].gap, level=level)


def evaluate(config: RunConfig, wanted: Wanted, say: Callable[[str], None]) -> Evaluation:
    """Measure every variant on some images of a configuration's source.

    Args:
        config: source, model and queries; nothing is written to its output.
        wanted: the images and variants to compare.
        say: receives messages about progress.

    Raises:
        UsageError: fewer than two classes, texts that the model cannot encode, or a mask of another
            size than its image.
        RunError: no image can be decoded.
    """
    classes = [n for n, query in enumerate(config.queries) if query.role is Role.CLASS]
    if len(classes) < 2:
        raise UsageError(
            "queries: expected at least two of role class, so that an answer can be lost; found "
            f"{len(classes)}"
        )
    pictures, failed = draw_pictures(config, wanted.images, wanted.masks)
    measured: list[Measured] = []
    notes: list[str] = []
    resized: set[Preprocess] = set()
    for resize in dict.fromkeys((config.model.resize, *wanted.resize)):
        settings = _settings(config, resize)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = settings.load()
            directions, without = _directions(model, config.queries)
        notes += [str(w.message) for w in caught if w.category is UserWarning] + without
        if model.preprocess in resized:  # a classifier's own way, named again
            continue
        resized.add(model.preprocess)
        inputs = Inputs.of(pictures, model.preprocess, config.source)
        bench = _Bench(settings, model, inputs, pictures, classes)
        blocks = len(model.tower.blocks)
        default = config.model.layers or model.default_layers
        layers = dict.fromkeys((default, *(blocks if n is None else n for n in wanted.layers)))
        own = any(query.distinct for query in config.queries if query.role is Role.CLASS)
        for count, distinct in itertools.product(layers, sorted(directions, key=own.__ne__)):
            if count > blocks:
                continue
            texts = None if isinstance(model, Classifier) else distinct
            variant = Variant(count, texts, model.preprocess.mode)
            say(str(variant))
            measured.append(bench.measured(variant, directions[distinct], directions[False]))
    labelled = sum(picture.own >= 0 for picture in pictures)
    return Evaluation(tuple(measured), len(pictures), labelled, failed, tuple(dict.fromkeys(notes)))


class _Bench:
    """The images as a model's input."""

    def __init__(
        self,
        settings: ReplicaSettings,
        model: VisionModel,
        inputs: Inputs,
        pictures: Sequence[Picture],
        classes: Sequence[int],
    ) -> None:
        self.settings, self.model = settings, model
        self.inputs, self.pictures = inputs, pictures
        self.classes = np.array(classes)
        self.bias = torch.zeros(len(classes), device=model.device)
        if isinstance(model, Classifier):
            self.bias = model.vectors(settings.classes)[1][self.classes]

    def measured(self, variant: Variant, directions: torch.Tensor, plain: torch.Tensor) -> Measured:
        """All figures of a variant; the model's answers are by the texts as they are."""
        classify = partial(self._classify, directions=plain)
        first = classify(self.inputs.pixels)
        truth = np.array(
            [p.own if p.own >= 0 else f for p, f in zip(self.pictures, first, strict=True)]
        )
        began = time.perf_counter()
        maps, pairs = self._maps(variant, directions, truth)
        seconds = (time.perf_counter() - began) / pairs
        heat = np.stack([maps[row][number] for row, number in enumerate(truth)])
        size = self.model.preprocess.size
        shown = [self.model.preprocess.cells(*s, size) for s in self.inputs.sizes]
        kept = areas(classify, self.inputs.pixels, heat, truth, first, shown)
        accuracy = 100 * float((first == truth).mean())
        return Measured(variant, kept, self._masked(maps), accuracy, seconds)

    def _classify(self, pixels: NDArray[np.uint8], directions: torch.Tensor) -> NDArray[np.int64]:
        """Numbers of the class queries with the highest scores."""
        best = []
        for start in range(0, len(pixels), _BATCH):
            part = torch.from_numpy(pixels[start : start + _BATCH])
            scores = self.model.encode_image(part) @ directions[self.classes].T + self.bias
            best.append(scores.argmax(dim=1).cpu().numpy())
        chosen: NDArray[np.int64] = self.classes[np.concatenate(best)]
        return chosen

    def _maps(
        self, variant: Variant, directions: torch.Tensor, truth: NDArray[np.int64]
    ) -> tuple[list[dict[int, NDArray[np.float32]]], int]:
        """For each image its maps by number of the query, and how many there are."""
        legrad, wanted_maps = LeGrad(self.model, variant.layers), []
        numbers = [{int(t), *p.masks} for t, p in zip(truth, self.pictures, strict=True)]
        for start in range(0, len(numbers), _BATCH):
            part = slice(start, start + _BATCH)
            select = torch.zeros(len(numbers[part]), len(directions), dtype=torch.bool)
            for row, wanted in enumerate(numbers[part]):
                select[row, list(wanted)] = True
            maps = self.settings.explain(
                legrad,
                torch.from_numpy(self.inputs.pixels[part]),
                directions,
                select=select,
                sizes=self.inputs.sizes[part],
            ).maps
            rows = maps.float().cpu().numpy()
            pairs = zip(rows, numbers[part], strict=True)
            wanted_maps += [{n: row[n] for n in wanted} for row, wanted in pairs]
        return wanted_maps, sum(map(len, numbers))

    def _masked(self, maps: Sequence[Mapping[int, NDArray[np.float32]]]) -> Array:
        rows = []
        for picture, size, heats in zip(self.pictures, self.inputs.sizes, maps, strict=True):
            box = self.model.preprocess.box(*size)
            for number, mask in picture.masks.items():
                rows.append(compared(upsample(heats[number], mask.shape, box), mask))
        return np.array(rows).reshape(-1, 10)


def _settings(config: RunConfig, resize: ResizeMode | None) -> ReplicaSettings:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = config.model.model_copy(update={"resize": resize})
    return ReplicaSettings(about, device, cores(), _BATCH, classes=config.classes)


def _directions(
    model: VisionModel, queries: Sequence[Query]
) -> tuple[dict[bool, torch.Tensor], list[str]]:
    """Directions (Q, E) of texts as they are (False) and made distinct (True), and notes.

    A classifier has those of its classes (False) only.
    """
    if isinstance(model, Classifier):
        return {False: directions_of(model, queries)}, []
    made, notes = {}, []
    for distinct in (False, True):
        changed = [
            q.model_copy(update={"distinct": bool(q.prompts) and distinct and (q.distinct or True)})
            for q in queries
        ]
        try:
            made[distinct] = directions_of(model, changed)
        except FileNotFoundError as error:
            raise UsageError(f"queries: {error}") from error
        except ValueError as error:
            if not distinct:
                raise UsageError(f"queries: {error}") from error
            notes.append(f"distinct texts are left out: {error}")
    return made, notes
