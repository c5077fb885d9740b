"""The drawn world: reproducible, scalable, and true masks."""

import numpy as np
import pytest

from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS, UNSEEN, SceneSpec, render
from training.captions import Caption, named, sample_captions, truth_matrix
from training.distractors import DISTRACTORS
from training.scenes import random_specs


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_where_their_masks_are(name: str) -> None:
    for seed in range(3):
        with_it = render(SceneSpec(name, "sand", (), seed), 96)
        without = render(SceneSpec(None, "sand", (), seed), 96)
        changed = (np.asarray(with_it.image) != np.asarray(without.image)).any(axis=2)
        assert 0.02 < with_it.object_mask.mean() < 0.45
        assert (changed & with_it.object_mask).sum() > 0.98 * with_it.object_mask.sum()
        assert changed.sum() < 1.35 * with_it.object_mask.sum() + 60
        assert not without.object_mask.any()


@pytest.mark.parametrize("name", [*OVERLAYS, *UNSEEN])
def test_overlays_change_their_masks_and_nothing_else(name: str) -> None:
    for seed in range(3):
        plain = render(SceneSpec("cat", "water", (), seed), 128)
        scene = render(SceneSpec("cat", "water", (name,), seed), 128)
        mask = scene.overlay_masks[name]
        changed = (np.asarray(plain.image) != np.asarray(scene.image)).any(axis=2)
        assert mask.mean() > 0.004
        assert (changed & mask).sum() > 0.95 * mask.sum()
        assert changed.sum() < 2.5 * mask.sum() + 80


def test_a_spec_decides_everything() -> None:
    spec = SceneSpec("boat", "water", ("logo", "ruler"), 7)
    assert render(spec, 64).image.tobytes() == render(spec, 64).image.tobytes()
    other = SceneSpec("boat", "water", ("logo", "ruler"), 8)
    assert render(spec, 64).image.tobytes() != render(other, 64).image.tobytes()


def test_scenes_scale() -> None:
    spec = SceneSpec("house", "brick", ("barcode",), 3)
    small, large = render(spec, 96), render(spec, 192)
    reduced = np.asarray(large.image.resize((96, 96)), float)
    assert np.abs(reduced - np.asarray(small.image, float)).mean() < 12
    assert abs(small.object_mask.mean() - large.object_mask.mean()) < 0.02


def test_later_opaque_overlays_hide_what_is_below() -> None:
    for seed in range(40):
        scene = render(SceneSpec("fish", "grass", ("watermark", "barcode"), seed), 96)
        assert not (scene.object_mask & scene.overlay_masks["barcode"]).any()
        assert not (scene.overlay_masks["watermark"] & scene.overlay_masks["barcode"]).any()


@pytest.mark.parametrize(
    "bad", [("dog", "water", ()), ("cat", "sea", ()), ("cat", "water", ("logo", "logo"))]
)
def test_unknown_names_are_refused(bad: tuple[str, str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SceneSpec(*bad, seed=0)
    with pytest.raises(ValueError, match="at least 32"):
        render(SceneSpec(None, "water", (), 0), 16)


def test_captions_say_what_is_true() -> None:
    spec = SceneSpec("boat", "water", ("logo",), 0)
    captions = [
        Caption("a boat", object="boat"),
        Caption("a boat on sand", object="boat", background="sand"),
        Caption("water with a logo", background="water", overlay="logo"),
        Caption("a stamp", overlay="stamp"),
        Caption("a zebra", distractor=True),
        Caption("a photo"),
    ]
    assert truth_matrix([spec], captions)[0].tolist() == [True, False, True, False, False, True]
    assert named("apple") == "an apple"


def test_a_batch_of_captions() -> None:
    rng = np.random.default_rng(0)
    specs = random_specs(rng, 64, first_seed=0)
    captions = sample_captions(rng, specs)
    truth = truth_matrix(specs, captions)
    assert len(captions) == 36 + 16 + 12 + 1
    assert truth[:, -1].all()
    assert not truth[:, [c.distractor for c in captions]].any()
    assert truth.any(axis=0).sum() > 36


def test_words() -> None:
    assert len(set(DISTRACTORS)) == len(DISTRACTORS) >= 200
    world = " ".join((*OBJECTS, *BACKGROUNDS, *OVERLAYS)).split()
    assert not set(DISTRACTORS) & set(world)
    assert not set(OBJECTS) & set(OVERLAYS)
