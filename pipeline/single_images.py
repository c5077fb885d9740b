"""Explain a few images for a few texts: no data set, no Ray, no output folder."""

import io
import json
import posixpath
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from legrad._version import __version__
from legrad.heatmaps import Box, FigureRow, Scale, grid_figure, suppress
from legrad.heatmaps.text import signed
from legrad.image_files import open_image
from legrad.method.explainer import LeGrad
from legrad.models.classifier import Classifier
from legrad.models.tokenizers import obstacle
from legrad.models.vision_language import VisionLanguageModel
from legrad.models.vision_model import VisionModel
from legrad.preprocess import Preprocess, to_rgb
from legrad.queries.distinct import residual
from pipeline.config import AnyModelConfig, ClassifierConfig, SourceConfig
from pipeline.errors import RunError, UsageError
from pipeline.machine import cores
from pipeline.results.rows import name_list
from pipeline.schema import Status
from pipeline.stages.decode import Decoding, decode
from pipeline.stages.replica import ReplicaSettings
from pipeline.storage.location import is_storage_error, open_location

EMPTY_PROMPT = "(empty prompt)"
_BATCH = 8
_DECODING = Decoding(SourceConfig.model_fields["max_pixels"].default)


@dataclass(frozen=True)
class Question:
    """The queries for every image.

    Attributes:
        texts: the texts of the queries, or names of a classifier's classes; a single text may be
            given as such.
        baseline: a text that names nothing in particular, as one more column by which
            `Answer.figure` can suppress the others. None for no such column.
        distinct: whether to explain what each text says beyond the other texts, see
            `legrad.queries.distinct`.
    """

    texts: tuple[str, ...]
    baseline: str | None = None
    distinct: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(name_list(self.texts)))
        if not self.texts or not all(text.strip() for text in self.texts):
            raise UsageError("queries: expected at least one text, and none of them empty")
        if self.distinct and len(self.texts) < 2:
            raise UsageError("distinct: expected at least two texts, found one")

    @property
    def columns(self) -> tuple[str, ...]:
        """All texts, the baseline last."""
        return self.texts if self.baseline is None else (*self.texts, self.baseline)


@dataclass(frozen=True)
class Answer:
    """Maps and scores of N images and Q columns.

    Attributes:
        question: the queries; Q is the number of its columns.
        names: the paths or URIs of the images.
        images: upright RGB.
        boxes: the part of each image that its maps cover, (left, top, right, bottom) in pixels.
        maps: (N, Q, h, w) float32, raw.
        scores: (N, Q) float32 cosines, or a classifier's logits.
        about: model, weights digest, layers and preprocessing.
        failures: image -> why it could not be explained.
        warnings: what was assumed about the model and the values of pixels, and the model's
            warnings about the texts.
    """

    question: Question
    names: tuple[str, ...]
    images: tuple[Image.Image, ...]
    boxes: tuple[Box, ...]
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    about: Mapping[str, object]
    failures: Mapping[str, str]
    warnings: tuple[str, ...]

    def figure(self, threshold: float | None = None, scale: Scale = "row") -> Image.Image:
        """An image a row, a text a column.

        Args:
            threshold: zero the cells where the baseline's normalised map exceeds it, see
                `legrad.heatmaps.suppress`; None shows the raw maps.
            scale: what shares one colour scale, see `legrad.heatmaps.grid_figure`.

        Raises:
            ValueError: a threshold without a baseline, or outside 0 to 1.
        """
        shown = self.maps
        if threshold is not None:
            if self.question.baseline is None:
                raise ValueError("suppression needs a baseline")
            kept = suppress(shown[:, :-1], shown[:, -1:], threshold)
            shown = np.concatenate([kept, shown[:, -1:]], axis=1)
        bases = [posixpath.basename(name) for name in self.names]
        labels = bases if len(set(bases)) == len(bases) else self.names
        rows = [
            FigureRow(list(maps), image, label, [signed(s) for s in scores], box=box)
            for maps, image, label, scores, box in zip(
                shown, self.images, labels, self.scores, self.boxes, strict=True
            )
        ]
        headings = [text or EMPTY_PROMPT for text in self.question.columns]
        if self.question.baseline is not None:
            headings[-1] += " \u2013 baseline"
        return grid_figure(rows, headings, scale=scale)

    def save(self, uri: str) -> None:
        """Write maps and all that is needed to place them as ``.npz`` (no pickles inside).

        ``maps`` (N, Q, h, w) float32, raw; ``scores`` (N, Q) float32; ``queries`` (Q,) texts;
        ``is_baseline`` (Q,) bool; ``images`` (N,) names; ``sizes`` (N, 2) width and height of the
        upright images; ``boxes`` (N, 4) left, top, right, bottom of the maps' grid in their
        pixels; ``about`` JSON text.
        """
        columns = self.question.columns
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            maps=self.maps,
            scores=self.scores,
            queries=np.array(columns),
            is_baseline=np.arange(len(columns)) >= len(self.question.texts),
            images=np.array(self.names),
            sizes=np.array([image.size for image in self.images], dtype=np.int32),
            boxes=np.array(self.boxes, dtype=np.float64),
            about=np.array(json.dumps(dict(self.about))),
        )
        open_location(uri).write(buffer.getvalue())


def explain_images(model: AnyModelConfig, uris: str | Sequence[str], question: Question) -> Answer:
    """Explain images named one by one; a broken one is a failure, and the others are explained.

    Args:
        model: which model, and how.
        uris: paths or fsspec URIs of image files; a single one may be given as such.
        question: the queries.

    Raises:
        RunError: no image could be explained; says why for each.
        UsageError: the model, its weights or its tokenizer cannot be loaded, or a classifier is
            asked for what only texts have.
    """
    uris = name_list(uris)
    is_classifier = isinstance(model, ClassifierConfig)
    lacking = None if is_classifier else obstacle(model.name)
    if is_classifier and (question.distinct or question.baseline is not None):
        lacking = "a classifier reads no texts, so there are no baseline and no distinct texts"
    if lacking:
        raise UsageError(lacking)
    read, failures = _read(dict.fromkeys(uris))
    _require_any(read, failures, uris)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        loaded = _load(model)
    opened: dict[str, tuple[Image.Image, NDArray[np.uint8]]] = {}
    guesses: list[str] = []
    for uri, data in read.items():
        try:
            image, pixels, guess = _open(data, loaded.preprocess)
            opened[uri] = image, pixels
            guesses += [] if guess is None else [f"{uri}: {guess}"]
        except _BrokenImageError as error:
            failures[uri] = str(error)
    _require_any(opened, failures, uris)
    legrad = LeGrad(loaded, model.layers)
    images = tuple(image for image, _ in opened.values())
    maps, scores, notes = _run(legrad, loaded, list(opened.values()), question)
    return Answer(
        question=question,
        names=tuple(opened),
        images=images,
        boxes=tuple(loaded.preprocess.box(*image.size) for image in images),
        maps=maps,
        scores=scores,
        about=_about(loaded, legrad.layers, question),
        failures={uri: failures[uri] for uri in uris if uri in failures},
        warnings=(*_messages(caught), *notes, *guesses),
    )


class _BrokenImageError(Exception):
    """The bytes are no image that can be decoded."""


def _read(uris: Iterable[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Bytes by URI, and the reason by URI where the storage gives none."""
    read: dict[str, bytes] = {}
    failures: dict[str, str] = {}
    for uri in uris:
        try:
            read[uri] = open_location(uri).read()
        except UsageError as error:
            failures[uri] = str(error)
    return read, failures


def _load(model: AnyModelConfig) -> VisionModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return ReplicaSettings(model, device, cores(), _BATCH).load()
    except Exception as error:
        if not isinstance(error, UsageError) and not is_storage_error(error):
            raise
        raise UsageError(f"model {model.name}: {error}") from error


def _require_any(
    images: Mapping[str, object], failures: Mapping[str, str], uris: Sequence[str]
) -> None:
    if not images:
        lines = [f"{uri}: {failures[uri]}" for uri in uris]
        raise RunError("\n  ".join(["no image could be explained", *lines]))


def _open(data: bytes, preprocess: Preprocess) -> tuple[Image.Image, NDArray[np.uint8], str | None]:
    """The upright original, pixels (3, height, width) as the model takes them, and a note."""
    decoded = decode(data, preprocess, _DECODING)
    if decoded.status != Status.OK or decoded.pixels is None:
        raise _BrokenImageError(f"{decoded.status}: {decoded.error}")
    with warnings.catch_warnings(), open_image(data) as image:
        warnings.simplefilter("ignore")  # `decode` accepted it
        upright = to_rgb(image)
    pixels = np.frombuffer(decoded.pixels, dtype=np.uint8).reshape(3, *preprocess.size)
    return upright, pixels, decoded.error


def _run(
    legrad: LeGrad,
    model: VisionModel,
    opened: Sequence[tuple[Image.Image, NDArray[np.uint8]]],
    question: Question,
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
    """Maps (N, Q, h, w), scores (N, Q), and the model's warnings about the texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            asked = _asked(model, question)
        except ValueError as error:  # its tokenizer's files, or texts that are alike
            raise UsageError(str(error)) from error
    notes = _messages(caught)
    maps, scores = [], []
    for start in range(0, len(opened), _BATCH):
        images, pixels = zip(*opened[start : start + _BATCH], strict=True)
        sizes = [image.size for image in images]
        explanation = legrad.explain(torch.from_numpy(np.stack(pixels)), sizes=sizes, **asked)
        maps.append(explanation.maps.float().cpu().numpy())
        scores.append(explanation.scores.float().cpu().numpy())
    return np.concatenate(maps), np.concatenate(scores), notes


def _asked(model: VisionModel, question: Question) -> dict[str, Any]:
    """The queries as arguments of `LeGrad.explain`.

    Raises:
        ValueError: there is no such class, the tokenizer cannot be read, or texts are alike.
    """
    if isinstance(model, Classifier):
        model.vectors(question.texts)  # refuses unknown classes
        return {"classes": question.texts}
    if not isinstance(model, VisionLanguageModel):
        raise TypeError(f"expected a vision-language model, found {type(model).__name__}")
    features = model.encode_text(question.columns)
    if question.distinct:
        features = _distinct(features, len(question.texts))
    return {"directions": features}


def _distinct(features: torch.Tensor, texts: int) -> torch.Tensor:
    """The same (Q, E) with the first rows made distinct from each other."""
    exact = features[:texts].double().cpu().numpy()
    rows = [residual(row, np.delete(exact, number, axis=0)) for number, row in enumerate(exact)]
    return torch.cat([torch.from_numpy(np.stack(rows)).to(features), features[texts:]])


def _messages(caught: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(str(w.message) for w in caught if w.category is UserWarning)


def _about(model: VisionModel, layers: int, question: Question) -> dict[str, object]:
    preprocess = model.preprocess
    return {
        "distinct": question.distinct,
        "model": model.name,
        "pretrained": model.pretrained,
        "weights_sha256": model.digest,
        "layers": layers,
        "precision": model.precision,
        "preprocess": asdict(preprocess),
        "legrad": __version__,
    }
