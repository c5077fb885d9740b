"""Which images are labelled: probabilities that hold, work that goes on, people merged."""

import numpy as np
import pandas as pd
import pytest

from pipeline.audit.label_design import (
    COLUMNS,
    Centring,
    ScoreStrata,
    agreement,
    answers_by_image,
    draw,
    elsewhere_labels,
    merge_labels,
    shuffle_keys,
)
from pipeline.errors import UsageError

IDS = [f"w/{number:05d}" for number in range(2000)]
SCORES = np.random.default_rng(0).standard_t(3, 2000)


def shuffled_rows(image_ids: list[str], seed: int) -> np.ndarray:
    return np.argsort(shuffle_keys(image_ids, seed), kind="stable")


def within_classes(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return Centring.of(scores, codes).centre(scores, codes)


def test_a_longer_queue_continues_a_shorter_one() -> None:
    strata = ScoreStrata.of(SCORES)
    order = shuffled_rows(IDS, 3)
    short, long = (draw(order, SCORES, strata, labels, 5) for labels in (40, 90))
    assert np.array_equal(long.rows[:40], short.rows)
    assert np.array_equal(long.fold[:40], short.fold)
    assert len(set(long.rows.tolist())) == 90


def test_probabilities_are_how_often_an_image_is_drawn() -> None:
    strata = ScoreStrata.of(SCORES[:200])
    drawn = np.zeros(200)
    sums = []
    for seed in range(400):
        queue = draw(shuffled_rows(IDS[:200], seed), SCORES[:200], strata, 30, 5)
        drawn[queue.rows] += 1
        sums.append((1 / queue.probability).sum())
    stratum = strata.stratum(SCORES[:200])
    queue = draw(shuffled_rows(IDS[:200], 0), SCORES[:200], strata, 30, 5)
    for code in range(3):
        chance = queue.probability[queue.stratum == code][0]
        rates = drawn[stratum == code] / 400
        assert rates.mean() == pytest.approx(chance)
        assert rates.std() < 1.4 * np.sqrt(chance * (1 - chance) / 400)
    assert drawn.min() > 0
    assert np.mean(sums) == pytest.approx(200)


def test_high_scores_are_looked_at_more_often_and_low_ones_still() -> None:
    queue = draw(shuffled_rows(IDS, 1), SCORES, ScoreStrata.of(SCORES), 100, 5)
    chances = [queue.probability[queue.stratum == code][0] for code in range(3)]
    assert chances[0] > chances[1] > chances[2] > 0.02


@pytest.mark.parametrize("scores", [np.zeros(50), np.arange(3.0), np.array([1.0])])
def test_ties_and_tiny_groups_are_labelled_whole(scores: np.ndarray) -> None:
    strata = ScoreStrata.of(scores)
    queue = draw(shuffled_rows(IDS[: len(scores)], 0), scores, strata, 1000, 5)
    assert sorted(queue.rows.tolist()) == list(range(len(scores)))
    assert (queue.probability == 1).all()
    assert sum(strata.sizes) == len(scores)


def test_classes_offsets_are_taken_out() -> None:
    codes = np.arange(2000) % 4
    shifted = within_classes(SCORES * 0.01 + codes * 7.0, codes)
    plain = within_classes(SCORES * 0.01, codes)
    assert shifted == pytest.approx(plain)
    assert within_classes(np.zeros(5), np.zeros(5, int)) == pytest.approx(np.zeros(5))


def test_enough_elsewhere_labels_lie_outside_the_largest_class() -> None:
    assert elsewhere_labels(50, 0.5) == 100
    assert elsewhere_labels(50, 0.0) == 50


def table(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    """Of image, answer, who and when."""
    return pd.DataFrame(
        [[image, "snow", "dog", 0, 0.1, answer, who, when] for image, answer, who, when in rows],
        columns=list(COLUMNS),
    )


def test_a_later_answer_of_the_same_person_replaces_the_earlier() -> None:
    old = table(("a", "present", "ann", "2026-01-01"), ("b", "absent", "ann", "2026-01-01"))
    new = table(("a", "absent", "ann", "2026-01-02"), ("c", "", "ann", "2026-01-02"))
    for frames in ([old, new], [new, old]):
        merged = merge_labels(frames).set_index("image_id")["answer"]
        assert merged.to_dict() == {"a": "absent", "b": "absent"}


def test_people_who_disagree_are_averaged_and_doubt_is_left_out() -> None:
    merged = merge_labels(
        [
            table(("a", "present", "ann", "1"), ("b", "cannot tell", "ann", "1")),
            table(("a", "absent", "bob", "1"), ("c", "present", "bob", "1")),
        ]
    )
    answers = answers_by_image(merged).set_index("image_id")
    assert answers["present"].to_dict() == {"a": 0.5, "c": 1.0}
    assert answers["people"].to_dict() == {"a": 2, "c": 1}


def test_kappa_takes_chance_out_of_agreement() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(400) < 0.1
    other = rng.random(400) < 0.1
    people = {"ann": one, "bob": one, "eve": other}
    frames = [
        table(*((f"i{n}", "present" if y else "absent", who, "1") for n, y in enumerate(said)))
        for who, said in people.items()
    ]
    found = agreement(merge_labels(frames)).set_index(["who", "other"])
    assert found.loc[("ann", "bob"), "kappa"] == pytest.approx(1)
    assert found.loc[("ann", "eve"), "agree"] > 0.75
    assert abs(found.loc[("ann", "eve"), "kappa"]) < 0.15
    assert found.loc[("ann", "eve"), "images"] == 400


def test_agreement_on_one_answer_only_has_no_kappa() -> None:
    frames = [table(("a", "absent", who, "1")) for who in ("ann", "bob")]
    found = agreement(merge_labels(frames)).iloc[0]
    assert found["agree"] == 1
    assert np.isnan(found["kappa"])


def test_strange_tables_are_refused() -> None:
    with pytest.raises(UsageError, match="maybe"):
        merge_labels([table(("a", "maybe", "ann", "1"))])
    with pytest.raises(UsageError, match="who"):
        merge_labels([table(("a", "absent", "ann", "1")).drop(columns="who")])
    assert merge_labels([]).empty
    assert agreement(merge_labels([])).empty
