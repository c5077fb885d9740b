"""Claims from labels where scores overlap: coverage, power and false flags on drawn scores.

    python -m benchmarks.overlap --rounds 20 --distances 2.3

A world is a cue's scores in nine classes that make up "elsewhere" (share .05) and in four classes
with the shares below, 1,000 images each. With and without the cue they lie d' apart within a
class; half of the worlds give every class an offset of its own (.7 deviations). People label n
images of a class and n elsewhere; some answers are wrong. Coverage counts intervals that hold what
people would say of all images; ``truth below`` counts lower bounds of the odds ratio that lie below
the true one. A flag is a lower bound above 1.5. A round of one distance
takes about a second of one core, so all five at 20 rounds take about two minutes.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.estimates import (
    Comparison,
    Labelled,
    ShareEstimate,
    compare_shares,
    estimate_share,
)
from pipeline.audit.label_design import Centring, ScoreStrata, draw
from pipeline.audit.label_predictor import FOLDS, Predictor, cross_fit

Array = NDArray[np.float64]
DISTANCES = (1.2, 1.8, 2.3, 3.0, 4.0)
DISTRIBUTIONS = ("normal", "exponential", "t3", "log-normal", "variances")
LABELS = (25, 50, 100, 200)
WRONG = (0.0, 0.03)
SHARES = (0.05, 0.15, 0.3, 0.6)
ELSEWHERE, CLASSES, IMAGES = 0.05, 9, 1000
GATE = 1.5


@dataclass(frozen=True)
class Group:
    """Scores (n,) within classes, and what a person would say of each image."""

    scores: Array
    answers: Array


def noise(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    """Draw noise of mean 0 and deviation 1; with "variances" the deviation differs by row."""
    if name == "exponential":
        return rng.exponential(1, shape) - 1
    if name == "t3":
        return rng.standard_t(3, shape) / math.sqrt(3)
    if name == "log-normal":
        deviation = math.sqrt((math.e - 1) * math.e)
        return (np.exp(rng.standard_normal(shape)) - math.exp(0.5)) / deviation
    spread = rng.uniform(0.6, 1.5, (shape[0], 1)) if name == "variances" else 1.0
    return rng.standard_normal(shape) * spread


def world(
    rng: np.random.Generator, name: str, distance: float, wrong: float, offset: float
) -> list[Group]:
    """Elsewhere, then a class for each share."""
    shares = np.array([ELSEWHERE] * CLASSES + list(SHARES))[:, None]
    shape = (len(shares), IMAGES)
    present = rng.random(shape) < shares
    scores = (
        noise(rng, name, shape) + distance * present + offset * rng.normal(size=(len(shares), 1))
    )
    codes = np.repeat(np.arange(len(shares)), IMAGES)
    flat = scores.ravel()
    scores = Centring.of(flat, codes).centre(flat, codes).reshape(shape)
    answers = (present ^ (rng.random(shape) < wrong)).astype(float)
    groups = [Group(scores[:CLASSES].ravel(), answers[:CLASSES].ravel())]
    return groups + [Group(scores[i], answers[i]) for i in range(CLASSES, len(shares))]


def with_predictions(
    rng: np.random.Generator, groups: list[Group], labels: int
) -> list[ShareEstimate]:
    """Estimates of two groups by the design and the predictor."""
    strata = [ScoreStrata.of(group.scores) for group in groups]
    queues = [
        draw(rng.permutation(len(group.scores)), group.scores, cut, labels, FOLDS)
        for group, cut in zip(groups, strata, strict=True)
    ]
    present = np.concatenate([g.answers[q.rows] for g, q in zip(groups, queues, strict=True)])
    scores = np.concatenate([g.scores[q.rows] for g, q in zip(groups, queues, strict=True)])
    codes = np.repeat(np.arange(len(groups)), [len(q.rows) for q in queues])
    folds = np.concatenate([q.fold for q in queues])
    predictors, predicted = cross_fit(present, scores, codes, folds, len(groups))
    return [
        estimate_share(
            Labelled(
                present[codes == code],
                queue.stratum,
                1 / queue.probability,
                predicted[codes == code],
                queue.fold,
            ),
            np.array(cut.sizes, dtype=float),
            np.array([_mean(predictor, group.scores, code) for predictor in predictors]),
        )
        for code, (group, queue, cut) in enumerate(zip(groups, queues, strata, strict=True))
    ]


def _mean(predictor: Predictor, scores: Array, code: int) -> float:
    return float(predictor.probability(scores, np.full(len(scores), code), None).mean())


def labels_alone(rng: np.random.Generator, groups: list[Group], labels: int) -> list[ShareEstimate]:
    """Estimates of two groups from plain random samples."""
    none = np.zeros(labels)
    return [
        estimate_share(
            Labelled(
                group.answers[rng.choice(len(group.answers), labels, replace=False)],
                none.astype(np.int64),
                none + 1,
                none,
                none.astype(np.int64),
            ),
            np.array([len(group.answers)], dtype=float),
            np.zeros(1),
        )
        for group in groups
    ]


def judge(
    estimates: list[ShareEstimate], compared: Comparison, shares: tuple[float, float], wrong: float
) -> list[float]:
    """What held, for one pair of class and elsewhere."""
    said = [share * (1 - wrong) + (1 - share) * wrong for share in shares]
    ratio, truth = _odds(said), _odds(shares)
    elsewhere, group = estimates
    return [
        group.low <= said[0] <= group.high,
        elsewhere.low <= said[1] <= elsewhere.high,
        compared.difference_low <= said[0] - said[1] <= compared.difference_high,
        compared.odds_low <= ratio <= compared.odds_high,
        compared.odds_low <= truth,
        compared.odds_low > GATE,
        group.effective / group.labels,
        elsewhere.effective / elsewhere.labels,
    ]


COLUMNS = ["class", "elsewhere", "difference", "odds", "truth below", "flagged"]
COLUMNS += ["gain class", "gain elsewhere"]


def _odds(shares: list[float] | tuple[float, float]) -> float:
    return shares[0] / (1 - shares[0]) / (shares[1] / (1 - shares[1]))


def rows(rounds: int, seed: int, distances: tuple[float, ...]) -> Iterator[list[object]]:
    """A row a world, share and method."""
    cases = product(DISTRIBUTIONS, distances, LABELS, WRONG)
    for number, (name, distance, labels, wrong) in enumerate(cases):
        rng = np.random.default_rng([seed, number, int(10 * distance)])
        for turn in range(rounds):
            groups = world(rng, name, distance, wrong, 0.7 * (turn % 2))
            for share, group in zip(SHARES, groups[1:], strict=True):
                for method in (with_predictions, labels_alone):
                    estimates = method(rng, [groups[0], group], labels)
                    compared = compare_shares(estimates[1], estimates[0])
                    values = judge(estimates, compared, (share, ELSEWHERE), wrong)
                    which = "ppi" if method is with_predictions else "labels"
                    yield [name, distance, labels, wrong, share, which, 0.7 * (turn % 2), *values]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="worlds of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--distances", type=float, nargs="+", default=list(DISTANCES))
    parser.add_argument("--save", help="CSV file for all rows")
    chosen = parser.parse_args()
    began = time.perf_counter()
    keys = ["noise", "d'", "labels", "wrong", "share", "method", "offset"]
    frame = pd.DataFrame(
        rows(chosen.rounds, chosen.seed, tuple(chosen.distances)), columns=keys + COLUMNS
    )
    if chosen.save:
        frame.to_csv(chosen.save, index=False)
    report(frame)
    print(f"{time.perf_counter() - began:.0f} s")


def report(frame: pd.DataFrame) -> None:
    """Print what the rows come to."""
    pd.set_option("display.width", 160)
    frame = frame.astype(dict.fromkeys(COLUMNS, float))
    covered = COLUMNS[:5]
    print("\nCoverage of 95 % intervals")
    print(frame.groupby(["method", "noise", "wrong"])[covered].mean().round(3).to_string())
    print(frame.groupby(["method", "labels"])[covered].mean().round(3).to_string())
    print(frame.groupby(["method", "offset"])[covered].mean().round(3).to_string())
    cells = frame[frame["method"] == "ppi"].groupby(["noise", "d'", "labels", "wrong"])
    print("lowest of", cells.ngroups, "cells:", cells[covered].mean().min().round(3).to_dict())
    print("\nFlagged: share against .05, labels a group x d'")
    for (wrong, method), part in frame.groupby(["wrong", "method"]):
        table = part.pivot_table("flagged", ["share", "labels"], "d'", "mean")
        print(f"{method}, {wrong:.0%} wrong\n{table.round(3).to_string()}")
    print("\nPower at .3, no wrong labels, by noise")
    some = frame[(frame["share"] == 0.3) & (frame["wrong"] == 0) & (frame["method"] == "ppi")]
    print(some.pivot_table("flagged", ["noise", "labels"], "d'", "mean").round(2).to_string())
    print("\nLabels of a plain sample that one label is worth, class / elsewhere")
    part = frame[(frame["method"] == "ppi") & (frame["wrong"] == 0)]
    for name in ("gain class", "gain elsewhere"):
        print(part.pivot_table(name, ["share", "labels"], "d'", "median").round(2).to_string())


if __name__ == "__main__":
    main()
