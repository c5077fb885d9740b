"""The run's model, loaded once when a text is first asked for."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from legrad.errors import UnsupportedModelError
from legrad.heatmaps.codec import encode_maps
from legrad.method.explainer import LeGrad
from legrad.models.vision_language import VisionLanguageModel
from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.report.contents import Grid
from pipeline.results import Results
from pipeline.results.reproduce import model_config, pixels_again
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings

_KEPT = 2000
"""Maps that are kept in memory."""


@dataclass
class TextModel:
    """Encodes texts as the run did.

    Attributes:
        results: the run.
        problem: why the model cannot be used here; empty while nothing is known against it.
    """

    results: Results
    problem: str = ""
    _model: VisionLanguageModel | None = None
    _legrad: LeGrad | None = None
    _lock: Lock = field(default_factory=Lock)
    _directions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _heat: OrderedDict[tuple[str, str], Grid] = field(default_factory=OrderedDict)

    def direction(self, text: str) -> NDArray[np.float32]:
        """(E,) unit vector of a text.

        Raises:
            UsageError: the model cannot be loaded here, or has other weights than in the run.
        """
        with self._lock:
            return self._direction(text)

    def heat(self, text: str, row: Mapping[str, Any]) -> Grid:
        """The heat of a text in one image, computed now or kept from before.

        Args:
            row: row of the image, with `PICTURE_COLUMNS`.

        Raises:
            UsageError: the model cannot be loaded here, or the image cannot be fetched.
        """
        key = (text, str(row["image_id"]))
        with self._lock:
            if key not in self._heat:
                self._heat[key] = self._explain(text, row)
                while len(self._heat) > _KEPT:
                    self._heat.popitem(last=False)
            return self._heat[key]

    def _explain(self, text: str, row: Mapping[str, Any]) -> Grid:
        model, identity = self._loaded(), self.results.run["identity"]
        decoding = Decoding.of_run(identity)
        pixels = pixels_again(self.results.origin, row, model.preprocess, decoding)
        if isinstance(pixels, str):
            raise UsageError(pixels)
        if self._legrad is None:  # it folds the model's matrices once for all images
            self._legrad = LeGrad(model, int(identity["model.layers"]))
        direction = torch.from_numpy(self._direction(text))[None]
        sizes = [(int(row["width"]), int(row["height"]))]
        image = torch.from_numpy(pixels[None].copy())
        maps = self._legrad.explain(image, direction, sizes=sizes).maps
        cells, peaks = encode_maps(maps[0].float().cpu().numpy())
        return Grid(cells[0].tobytes(), float(peaks[0]))

    def _direction(self, text: str) -> NDArray[np.float32]:
        if text not in self._directions:
            model = self._loaded()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # words the mini model never saw
                features = model.encode_text([text])
            self._directions[text] = features[0].float().cpu().numpy()
        return self._directions[text]

    def load(self) -> None:
        """Load the model ahead; `problem` says why it cannot be."""
        with self._lock:
            try:
                self._loaded()
            except UsageError as error:
                self.problem = str(error)

    def _loaded(self) -> VisionLanguageModel:
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
            model = ReplicaSettings(settings, "cpu", cores(), 1).load_reader_of_texts()
        except (OSError, ValueError, KeyError, RuntimeError, UnsupportedModelError) as error:
            raise UsageError(f"the run's model cannot be loaded here: {error}") from error
        if model.digest != self.results.run["identity"].get("model.weights_sha256"):
            raise UsageError(f"{settings.name} has other weights here than in the run")
        return model
