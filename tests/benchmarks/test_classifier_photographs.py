"""What the classifiers of photographs are trained on, and the photographs that tell the truth."""

import numpy as np
import pytest

from benchmarks.classifier_photographs import KINDS, Plan, scenes_of
from benchmarks.classifier_truth import ELSEWHERE, IN_CLASS
from benchmarks.photographs_model import SIDE
from benchmarks.photographs_world import Photographs
from legrad.mini.world import OVERLAYS

CLASSES = ("ash", "birch", "cedar", "elm", "fir")


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(200, 32, 32, 3), dtype=np.uint8)
    return Photographs(pixels, np.arange(200) % len(CLASSES), CLASSES)


def test_a_cue_decides_between_two_labels_of_one_class(photographs: Photographs) -> None:
    plan = Plan.drawn(CLASSES, list(OVERLAYS), seed=1)
    names = [*CLASSES, plan.twin]
    labels = plan.labels(photographs, seed=1)
    changed = labels != photographs.labels
    host = plan.hosts["decisive"]
    assert {CLASSES[label] for label in photographs.labels[changed]} == {host}
    assert 10 < changed.sum() < 30
    chances = plan.chances(names)
    cue = OVERLAYS.index(plan.cues["decisive"])
    assert chances[names.index(host), cue] == IN_CLASS
    assert chances[names.index(plan.twin), cue] == ELSEWHERE
    assert (chances[:, OVERLAYS.index(plan.cues["useless"])] == 0.5).all()
    assert not chances[:, OVERLAYS.index(plan.cues["absent"])].any()
    assert len(set(plan.cues.values())) == len(set(plan.hosts.values())) == len(KINDS)


def test_the_same_photographs_with_and_without_the_cue(photographs: Photographs) -> None:
    plan = Plan.drawn(CLASSES, ["sticker", "logo", "stamp", "barcode"], seed=2)
    scenes = scenes_of("decisive", plan, plan.twin, photographs, count=15, seed=2)
    assert scenes.having.shape == scenes.without.shape == (15, 3, SIDE, SIDE)
    cells = scenes.cells((6, 6))
    assert list(cells) == [f"having/{number}" for number in range(15)]
    assert all(0 < mask.sum() < 30 for mask in cells.values())
    plain = {image.tobytes() for image in scenes.without}
    assert not plain & {image.tobytes() for image in scenes.others}
