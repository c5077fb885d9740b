"""From embeddings to claims: the drawn images, the predictor that learns from them, the estimate.

Every image has an embedding in which the cue, the object of its class and noise add up. The text's
direction catches only a part of the cue, so that answers teach the predictor something. Answers are
the truth, for images that the stored design draws.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.audit.label_design import COLUMNS, ELSEWHERE, ScoreStrata
from pipeline.audit.label_estimates import estimate_from_labels
from pipeline.audit.label_groups import Design, LabelImages, Labels, group_code
from pipeline.audit.scores import count_population
from tests.audit.worlds import World, labels

CLASSES = ("planted", "same", "ash", "elm", "fir")
SHARES = {"planted": 0.4, "same": 0.1375}
"""Of images with the cue; 0.1375 is also the share of all images that are not of "same"."""
ELSEWHERE_SHARE = 0.05
IMAGES, WIDTH, DISTANCE, OFFSETS = 1500, 24, 1.5, 0.7
CAUGHT = 0.6
"""Cosine of the text's direction and the cue's."""
LABELS, ROUNDS = 80, 40
GATE = 1.5


def world(seed: int, distance: float) -> World:
    """A cue moves images along its own direction, and a class moves them in all directions."""
    rng = np.random.default_rng(seed)
    made = World(labels(IMAGES, CLASSES, seed))
    made.cue("tag", SHARES, elsewhere=ELSEWHERE_SHARE, seed=seed)
    codes = np.array([CLASSES.index(str(label)) for label in made.labels])
    line, other = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    objects = OFFSETS * rng.normal(size=(len(CLASSES), WIDTH))
    noise = rng.standard_t(5, (IMAGES, WIDTH)) / np.sqrt(5 / 3)
    vectors = noise + objects[codes] + distance * made.has["tag"][:, None] * line
    made.vectors = (vectors / 10).astype(np.float16)
    made.scores["tag"] = made.vectors.astype(float) @ (
        CAUGHT * line + np.sqrt(1 - CAUGHT**2) * other
    )
    return made


def drawn(made: World, seed: int) -> tuple[Any, Any, Labels]:
    """Results and population of a world, and true answers on the images of its design."""
    results = SimpleNamespace(dataset=made.dataset)
    population = count_population(results, 100)
    images = LabelImages.read(results, population, ["tag"], seed)
    design, rows = Design(seed, {}), []
    for group in ("planted", "same", ELSEWHERE):
        code = group_code(population, group)
        members = images.rows("tag", code)
        design = design.drawing("tag", group, ScoreStrata.of(images.scores["tag"][members]), LABELS)
        queue = images.queue("tag", code, design.groups["tag", group].strata, LABELS)
        ids = images.ids.take(queue.rows).to_pylist()
        numbers = [int(name.rpartition("/")[2]) for name in ids]
        answers = np.where(made.has["tag"][numbers], "present", "absent")
        rows += [
            [name, "tag", group, 0, chance, answer, "ann", ""]
            for name, chance, answer in zip(ids, queue.probability, answers, strict=True)
        ]
    answered = pd.DataFrame(rows, columns=list(COLUMNS))
    return results, population, Labels(answered, Design._parsed(design.to_json(), "d"), ("a.csv",))


def estimates(
    rounds: Sequence[int], distance: float = DISTANCE, *, embedded: bool = True
) -> pd.DataFrame:
    """The estimates of both classes in every round, with the true shares of its images."""
    frames = []
    for seed in rounds:
        made = world(seed, distance)
        made.vectors = made.vectors if embedded else None
        frame = estimate_from_labels(*drawn(made, seed)).frame
        of = np.array(made.labels)[:, None] == frame["class"].to_numpy()
        has = made.has["tag"][:, None]
        frame["true"] = (has & of).sum(axis=0) / of.sum(axis=0)
        frame["true_elsewhere"] = (has & ~of).sum(axis=0) / (~of).sum(axis=0)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return estimates(range(ROUNDS))


def test_intervals_hold_the_true_values(found: pd.DataFrame) -> None:
    odds = found[["true", "true_elsewhere"]].to_numpy()
    odds = odds / (1 - odds)
    truths = {"difference_": found["true"] - found["true_elsewhere"], "": odds[:, 0] / odds[:, 1]}
    assert len(found) == 2 * ROUNDS
    for prefix, truth in truths.items():
        inside = (found[f"{prefix}low"] <= truth) & (truth <= found[f"{prefix}high"])
        assert inside.mean() > 0.91, prefix


def test_estimates_are_right_on_average(found: pd.DataFrame) -> None:
    for name, truth in (("share", "true"), ("share_elsewhere", "true_elsewhere")):
        errors = (found[name] - found[truth]).to_numpy()
        assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(errors))


def test_a_planted_cue_is_claimed_and_equal_shares_are_not(found: pd.DataFrame) -> None:
    claimed = (found["low"] > GATE).groupby(found["class"]).mean()
    assert claimed["planted"] > 0.95
    assert claimed["same"] <= 0.01
    assert (found.loc[found["class"] == "same", "p"] < 0.05).mean() < 0.1


def test_the_embeddings_teach_what_the_text_misses() -> None:
    """An answer is worth more where the predictor sees embeddings."""
    worth = [
        (frame["effective"] / frame["labels"]).mean()
        for frame in (estimates(range(8), 3.0, embedded=embedded) for embedded in (True, False))
    ]
    assert worth[0] > worth[1] + 0.2
