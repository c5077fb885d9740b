"""The run's model, loaded once when a text is first asked for."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from legrad.errors import UnsupportedModelError
from legrad.heatmaps.codec import encode_maps
from legrad.method.explainer import LeGrad
from legrad.models.vision_language import VisionLanguageModel
from pipeline.audit.directions import encode_words
from pipeline.errors import UsageError
from pipeline.machine import cores, map_in_threads
from pipeline.report.contents import Grid
from pipeline.results import Results
from pipeline.results.reproduce import model_config, pixels_again
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings

_KEPT = 2000
"""Maps that are kept in memory."""
_AT_ONCE = 8
"""Texts that are encoded before somebody else's text has its turn."""


@dataclass
class TextModel:
    """Encodes texts as the run did, and explains images for them.

    A text is encoded in any thread, also while images are explained in another one.

    Attributes:
        results: the run.
        problem: why the model cannot be used here; empty while nothing is known against it.
    """

    results: Results
    problem: str = ""
    _model: VisionLanguageModel | None = None
    _legrad: LeGrad | None = None
    _lock: RLock = field(default_factory=RLock)
    _turn: Lock = field(default_factory=Lock)
    _directions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _heat: OrderedDict[tuple[str, str], Grid] = field(default_factory=OrderedDict)

    def direction(self, text: str) -> NDArray[np.float32]:
        """(E,) unit vector of a text.

        Raises:
            UsageError: the model cannot be loaded here, or has other weights than in the run.
        """
        if text not in self._directions:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # words the mini model never saw
                self._directions[text] = self._encode([text])[0]
        return self._directions[text]

    def encode_words(self) -> None:
        """Encode the words of suspicions for the audit, which would load the model a second time.

        Raises:
            UsageError: the model cannot be loaded here, or has other weights than in the run.
        """
        self._loaded()
        encode_words(self.results, self._encode)

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, E) unit vectors of texts, a few at a time, so that other threads have their turn."""
        parts = []
        for start in range(0, len(texts), _AT_ONCE):
            self._turn.acquire()  # whoever holds it is the next to encode
            with self._lock:  # not every tokenizer can be used by two threads
                self._turn.release()
                parts.append(self._loaded().encode_text(texts[start : start + _AT_ONCE]))
        return torch.cat(parts).float().cpu().numpy()

    def heat(self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[Grid]]:
        """The heat of some texts in some images, computed now or kept from before.

        Images are explained together, which takes less time than one after another, and for all
        texts at once, which takes one forward pass. To be called from one thread only.

        Args:
            texts: the texts.
            rows: row of each image, with `PICTURE_COLUMNS`.

        Returns:
            For each image the heat of each text, or nothing if the image cannot be fetched.

        Raises:
            UsageError: the model cannot be loaded here, or has other weights than in the run.
        """
        ids = [str(row["image_id"]) for row in rows]
        known = {(text, name) for text in texts for name in ids} & self._heat.keys()
        self._explain(
            texts,
            [
                row
                for name, row in zip(ids, rows, strict=True)
                if any((text, name) not in known for text in texts)
            ],
        )
        found = [
            [self._heat[text, name] for text in texts if (text, name) in self._heat] for name in ids
        ]
        while len(self._heat) > _KEPT:
            self._heat.popitem(last=False)
        return found

    def _explain(self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Compute the heat of texts in the images that can be fetched, and keep it."""
        model, identity = self._loaded(), self.results.run["identity"]
        decoding = Decoding.of_run(identity)
        fetched = map_in_threads(
            lambda row: pixels_again(self.results.origin, row, model.preprocess, decoding), rows
        )
        readable = [
            (row, pixels)
            for row, pixels in zip(rows, fetched, strict=True)
            if not isinstance(pixels, str)
        ]
        if not readable:
            return
        if self._legrad is None:  # it folds the model's matrices once for all images
            self._legrad = LeGrad(model, int(identity["model.layers"]))
        directions = torch.from_numpy(np.stack([self.direction(text) for text in texts]))
        images = torch.from_numpy(np.stack([pixels for _, pixels in readable]))
        sizes = [(int(row["width"]), int(row["height"])) for row, _ in readable]
        maps = self._legrad.explain(images, directions, sizes=sizes).maps.float().cpu().numpy()
        for (row, _), of_image in zip(readable, maps, strict=True):
            cells, peaks = encode_maps(of_image)
            for text, grid, peak in zip(texts, cells, peaks, strict=True):
                self._heat[text, str(row["image_id"])] = Grid(grid.tobytes(), float(peak))

    def load(self) -> None:
        """Load the model ahead; `problem` says why it cannot be."""
        with suppress(UsageError):
            self._loaded()

    def _loaded(self) -> VisionLanguageModel:
        with self._lock:
            if self.problem:
                raise UsageError(self.problem)
            if self._model is None:
                try:
                    self._model = self._load()
                except UsageError as error:
                    self.problem = str(error)
                    raise
            return self._model

    def _load(self) -> VisionLanguageModel:
        try:
            settings = model_config(self.results.run)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            model = ReplicaSettings(settings, device, cores(), 1).load_reader_of_texts()
        except (OSError, ValueError, KeyError, RuntimeError, UnsupportedModelError) as error:
            raise UsageError(f"the run's model cannot be loaded here: {error}") from error
        if model.digest != self.results.run["identity"].get("model.weights_sha256"):
            raise UsageError(f"{settings.name} has other weights here than in the run")
        return model
