"""The shipped weights are as good as their card says."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from legrad import LeGrad, load_model, mini
from legrad.mini import loader
from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS
from legrad.models.vision_language import VisionLanguageModel
from training.captions import named
from training.distractors import DISTRACTORS
from training.grounding import Grounding, delete, measure, overall, pixel_auc, scores_of
from training.held_out import Truth, held_out
from training.scenes import HELD_OUT, random_specs

SCENES = 120


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return load_model("mini", device="cpu")


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Scenes that neither training nor the card saw."""
    first = HELD_OUT + 9_000_000
    return held_out(random_specs(np.random.default_rng(99), SCENES, first), 96, 8, 2)


def scores(model: VisionLanguageModel, truth: Truth, texts: list[str]) -> np.ndarray:
    return scores_of(LeGrad(model), truth.pixels, model.encode_text(texts))


def test_files_and_card(model: VisionLanguageModel) -> None:
    assert (mini.FOLDER / mini.WEIGHTS).stat().st_size <= 8e6
    card = loader.load().card
    assert model.default_layers == card["default_layers"] == card["figures"]["layers"]
    assert model.grid == (12, 12)
    figures = card["figures"]
    assert figures["scenes"] >= 1000
    assert min(figures["object_accuracy"], figures["background_accuracy"]) >= 0.98
    assert min(figures["overlay_auc"].values()) >= 0.98
    assert set(figures["grounding"]) == {*OBJECTS, *OVERLAYS}


def test_recognition_on_fresh_scenes(model: VisionLanguageModel, truth: Truth) -> None:
    objects = scores(model, truth, [named(name) for name in OBJECTS])
    shown = [i for i, spec in enumerate(truth.specs) if spec.object is not None]
    right = [OBJECTS[objects[i].argmax()] == truth.specs[i].object for i in shown]
    assert np.mean(right) >= 0.96
    places = scores(model, truth, list(BACKGROUNDS)).argmax(axis=1)
    found = [BACKGROUNDS[p] == s.background for p, s in zip(places, truth.specs, strict=True)]
    assert np.mean(found) >= 0.97
    overlays = scores(model, truth, [named(name) for name in OVERLAYS])
    for name, column in zip(OVERLAYS, overlays.T, strict=True):
        there = truth.contains(name)
        pairs = there.sum() * (~there).sum()
        assert mannwhitneyu(column[there], column[~there]).statistic / pairs >= 0.95, name


def test_absent_things_score_low(model: VisionLanguageModel, truth: Truth) -> None:
    absent = scores(model, truth, [named(word) for word in DISTRACTORS[::10]])
    objects = scores(model, truth, [named(name) for name in OBJECTS])
    own = [
        objects[i, OBJECTS.index(spec.object)]
        for i, spec in enumerate(truth.specs)
        if spec.object is not None
    ]
    assert np.mean(own) > absent.mean() + 0.2


def test_grounding_on_fresh_scenes(model: VisionLanguageModel, truth: Truth) -> None:
    names = (*OBJECTS, *OVERLAYS)
    texts = dict(zip(names, model.encode_text([named(n) for n in names]), strict=True))
    found = measure(LeGrad(model), truth, texts, np.random.default_rng(0))
    card = loader.load().card["figures"]["grounding"]
    for group in (OBJECTS, OVERLAYS):
        ours = overall([found[name] for name in group if found[name].images])
        theirs = overall([Grounding(**card[name]) for name in group])
        assert ours.pointing > ours.pointing_chance + 0.3
        assert ours.pixel_auc > 0.75
        for figure in ("pointing", "pixel_auc", "deletion"):
            assert abs(getattr(ours, figure) - getattr(theirs, figure)) < 0.1, figure


def test_unknown_words_warn(model: VisionLanguageModel) -> None:
    with pytest.warns(UserWarning, match="never saw some words of: 'a quasar'"):
        model.encode_text(["a boat", "a quasar"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text([named(name) for name in (*OBJECTS, *OVERLAYS, *DISTRACTORS)])
        model.encode_text([*BACKGROUNDS, "a photo", "an image"])


def test_pixel_auc_and_deletion_by_hand() -> None:
    mask = np.array([[True, False], [False, False]])
    assert pixel_auc(np.array([[3, 1], [2, 0]], np.float32), mask) == 1
    assert pixel_auc(np.array([[0, 1], [2, 3]], np.float32), mask) == 0
    assert pixel_auc(np.ones((2, 2), np.float32), mask) == 0.5
    pixels = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(1, 3, 4, 4)
    cells = np.array([[[0.0, 9.0], [1.0, 2.0]]], np.float32)
    painted = delete(pixels, cells, 0.25)
    changed = (painted != pixels).any(axis=(0, 1))
    assert not changed[2:].any()
    assert not changed[:, :2].any()
    for channel in range(3):
        assert (painted[0, channel, :2, 2:] == int(pixels[0, channel].mean())).all()


def test_larger_images_are_explained_on_a_finer_grid(model: VisionLanguageModel) -> None:
    fine = load_model("mini", image_size=(96, 128), device="cpu")
    assert fine.grid == (12, 16)
    pixels = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    assert LeGrad(fine).explain(pixels, fine.encode_text(["a cat"])).maps.shape == (1, 1, 12, 16)
    with pytest.raises(ValueError, match="multiples of the patch"):
        load_model("mini", image_size=100)
    with pytest.raises(ValueError, match="its own weights"):
        load_model("mini", "openai")
