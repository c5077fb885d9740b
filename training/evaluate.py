"""The figures on the mini model's card: recognition and grounding on held-out scenes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from open_clip import SimpleTokenizer
from scipy.stats import mannwhitneyu
from torch import Tensor

from legrad import mini
from legrad.method.explainer import LeGrad
from legrad.mini.loader import unpack
from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS
from legrad.models.load import from_open_clip
from legrad.models.vision_language import VisionLanguageModel
from training.captions import named
from training.grounding import Grounding, measure, overall, scores_of
from training.held_out import Truth, held_out
from training.scenes import HELD_OUT, random_specs

SCENES = 1_000
SELECTION_SCENES = 300
_SELECTION_SEEDS = HELD_OUT + 1_000_000  # the layers are not chosen on the scenes reported
_SEED = 11
ScoresOfTexts = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Figures:
    """Everything measured on ``scenes`` held-out scenes with the last ``layers`` blocks explained.

    Attributes:
        object_accuracy, background_accuracy: zero-shot accuracy.
        overlay_auc: per overlay, AUC of its score for its presence.
        grounding: per object and overlay.
    """

    scenes: int
    layers: int
    object_accuracy: float
    background_accuracy: float
    overlay_auc: dict[str, float]
    grounding: dict[str, Grounding]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, four digits, for JSON."""
        rounded: dict[str, Any] = json.loads(
            json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 4)
        )
        return rounded

    def as_markdown(self) -> str:
        """Two tables."""
        objects = overall([self.grounding[name] for name in OBJECTS])
        overlays = overall([self.grounding[name] for name in OVERLAYS])
        rows = [("all objects", objects), ("all overlays", overlays)]
        rows += [(name, self.grounding[name]) for name in (*OVERLAYS, *OBJECTS)]
        return "\n".join(
            [
                f"On {self.scenes:,} held-out scenes, the last {self.layers} blocks explained:",
                "",
                "| recognition | |",
                "|---|---|",
                f"| object, zero-shot accuracy over {len(OBJECTS)} | {self.object_accuracy:.3f} |",
                f"| background, zero-shot accuracy over {len(BACKGROUNDS)} "
                f"| {self.background_accuracy:.3f} |",
                *(
                    f"| {name}, presence AUC | {auc:.3f} |"
                    for name, auc in self.overlay_auc.items()
                ),
                "",
                "| grounding | images | pointing (chance) | pixel AUC (.5) | deletion (chance) |",
                "|---|---|---|---|---|",
                *(_row(name, grounding) for name, grounding in rows),
            ]
        )


def _row(name: str, g: Grounding) -> str:
    return (
        f"| {name} | {g.images} | {g.pointing:.2f} ({g.pointing_chance:.2f}) "
        f"| {g.pixel_auc:.2f} | {g.deletion:.2f} ({g.deletion_chance:.2f}) |"
    )


def evaluate(folder: Path, processes: int, layers: int | None = None) -> Figures:
    """Measure the packed weights in a folder.

    Args:
        folder: holds ``config.json`` and ``weights.safetensors``.
        processes: worker processes that draw the scenes.
        layers: how many blocks to explain; None chooses by `best_layers`, on other scenes.
    """
    model = _load(folder)
    chosen = best_layers(model, processes) if layers is None else layers
    truth = _scenes(model, SCENES, HELD_OUT, processes)
    explainer = LeGrad(model, chosen)

    def scores(texts: list[str]) -> NDArray[np.float32]:
        return scores_of(explainer, truth.pixels, model.encode_text(texts))

    return Figures(
        scenes=SCENES,
        layers=chosen,
        object_accuracy=_object_accuracy(scores, truth),
        background_accuracy=_background_accuracy(scores, truth),
        overlay_auc=_overlay_auc(scores, truth),
        grounding=measure(explainer, truth, _things(model), np.random.default_rng(_SEED)),
    )


def best_layers(model: VisionLanguageModel, processes: int) -> int:
    """The number of blocks whose maps ground best: mean of pointing and pixel AUC of all things."""
    truth = _scenes(model, SELECTION_SCENES, _SELECTION_SEEDS, processes)
    quality = {}
    for layers in range(1, len(model.tower.blocks) + 1):
        groundings = measure(
            LeGrad(model, layers), truth, _things(model), np.random.default_rng(_SEED)
        )
        quality[layers] = float(
            np.mean([(g.pointing + g.pixel_auc) / 2 for g in groundings.values()])
        )
        print(f"last {layers} blocks: grounding {quality[layers]:.3f}", flush=True)
    return max(quality, key=lambda layers: quality[layers])


def _load(folder: Path) -> VisionLanguageModel:
    config = json.loads((folder / mini.CONFIG).read_text())
    module, _ = unpack(config, folder / mini.WEIGHTS)
    tokenizer = SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    return from_open_clip(module, tokenizer=tokenizer, name="mini")


def _scenes(model: VisionLanguageModel, count: int, first_seed: int, processes: int) -> Truth:
    specs = random_specs(np.random.default_rng([_SEED, first_seed]), count, first_seed)
    return held_out(specs, model.preprocess.size[0], model.tower.patch_size[0], processes)


def _things(model: VisionLanguageModel) -> dict[str, Tensor]:
    names = (*OBJECTS, *OVERLAYS)
    return dict(zip(names, model.encode_text([named(n) for n in names]), strict=True))


def _object_accuracy(scores_of_texts: ScoresOfTexts, truth: Truth) -> float:
    """Over scenes that have an object."""
    scores = scores_of_texts([named(name) for name in OBJECTS])
    names = [spec.object for spec in truth.specs]
    right = [
        OBJECTS[int(row.argmax())] == name
        for row, name in zip(scores, names, strict=True)
        if name is not None
    ]
    return float(np.mean(right))


def _background_accuracy(scores_of_texts: ScoresOfTexts, truth: Truth) -> float:
    scores = scores_of_texts(list(BACKGROUNDS))
    names = [spec.background for spec in truth.specs]
    return float(
        np.mean([BACKGROUNDS[i] == n for i, n in zip(scores.argmax(1), names, strict=True)])
    )


def _overlay_auc(scores_of_texts: ScoresOfTexts, truth: Truth) -> dict[str, float]:
    scores = scores_of_texts([named(name) for name in OVERLAYS])
    result = {}
    for name, column in zip(OVERLAYS, scores.T, strict=True):
        present = truth.contains(name)
        pairs = present.sum() * (~present).sum()
        result[name] = float(mannwhitneyu(column[present], column[~present]).statistic / pairs)
    return result
