"""Tails, skewness and unequal spreads are not presence; two states still are."""

import numpy as np
import pytest

from pipeline.audit.presence import CueStatus
from tests.audit.test_claims import CLASSES, audit, flagged
from tests.audit.worlds import World, labels

SHAPES = ["normal", "exponential", "t3", "log-normal", "variances"]
COUNT = 3000


def noise(shape: str, rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """Of deviation 1, or of a deviation for each class."""
    n = len(codes)
    if shape == "exponential":
        return rng.exponential(1, n) - 1
    if shape == "t3":
        return rng.standard_t(3, n) / np.sqrt(3)
    if shape == "log-normal":
        return rng.lognormal(0, 1, n) / np.sqrt((np.e - 1) * np.e)
    spread = rng.uniform(0.6, 1.6, len(CLASSES))[codes] if shape == "variances" else 1.0
    return rng.standard_normal(n) * spread


def world(shape: str, cues: int, distance: float, share: float, seed: int) -> World:
    """Cue c is planted in class c; a distance of 0 plants none."""
    result = World(labels(COUNT, CLASSES, seed))
    rng = np.random.default_rng(seed)
    codes = np.array([CLASSES.index(str(label)) for label in result.labels])
    for cue in range(cues):
        chance = np.where(codes == cue % len(CLASSES), share, 0.05)
        has = rng.random(COUNT) < chance
        offsets = rng.normal(0, 0.5, len(CLASSES))[codes]
        result.scores[f"cue_{cue}"] = offsets + noise(shape, rng, codes) + distance * has
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_one_state_of_any_shape_is_not_presence(shape: str) -> None:
    found = audit(world(shape, 16, 0, 0, seed=4), bootstrap=20)
    assert len(flagged(found)) <= 0.01 * 16 * len(CLASSES)
    assert sum(status is CueStatus.MEASURED for status in found.presence.status) <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("distance", "share"), [(6, 0.3), (10, 0.8)])
def test_two_states_of_any_shape_are_presence(shape: str, distance: float, share: float) -> None:
    found = audit(world(shape, 8, distance, share, seed=5), bootstrap=50)
    planted = {(name, f"cue_{cue}") for cue, name in enumerate(CLASSES)}
    assert flagged(found) == planted


def test_a_cue_of_one_small_class_among_many_is_still_found() -> None:
    many = [f"class {n}" for n in range(60)]
    result = World(labels(6000, many, 1))
    rng = np.random.default_rng(2)
    members = np.array(result.labels) == "class 7"
    has = members & (rng.random(6000) < 0.5)
    result.scores["rare"] = rng.standard_normal(6000) + 9.0 * has
    found = audit(result, bootstrap=50)
    assert flagged(found) == {("class 7", "rare")}
