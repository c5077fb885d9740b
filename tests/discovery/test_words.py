"""The shipped vocabulary, what words are to classes, and a user's own vocabulary."""

from pathlib import Path

import pytest

from pipeline.discovery.words import FEWEST_WORDS, Relation, plain_word, wordnet, words
from pipeline.errors import UsageError


def test_the_shipped_vocabulary_is_of_what_can_be_seen() -> None:
    phrases = words()
    assert 9_000 < len(phrases) == len(set(phrases)) < 11_000
    assert {"a watermark", "a ruler", "a fence", "snow", "something red"} <= set(phrases)
    notice = Path(__file__).parents[2] / "pipeline" / "discovery" / "WORDNET_LICENSE"
    assert "Princeton" in notice.read_text()


@pytest.mark.parametrize(
    ("label", "phrase", "relation"),
    [
        ("boat", "a canoe", Relation.NAME),
        ("boat", "a rudder", Relation.PART),
        ("car", "an automobile", Relation.NAME),
        ("frozen_fish", "a shark", Relation.NAME),
        ("wheel", "a car", Relation.PART),
        ("bird", "a feather", Relation.PART),
        ("boat", "water", Relation.NONE),
        ("class_17", "water", Relation.NONE),
    ],
)
def test_relations_to_a_class(label: str, phrase: str, relation: Relation) -> None:
    assert wordnet().relation(label, phrase) == relation


def test_labels_and_phrases_are_compared_without_articles() -> None:
    assert plain_word("an Old_Boat") == "old boat"
    assert plain_word("a") == "a"


def test_a_users_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    lines = [f"word {number}" for number in range(FEWEST_WORDS)]
    file.write_text("# mine\n" + "\n".join([*lines, lines[0], ""]))
    assert words(str(file)) == tuple(lines)
    file.write_text("a dog\n")
    with pytest.raises(UsageError, match="at least"):
        words(str(file))
    with pytest.raises(UsageError):
        words(str(tmp_path / "missing.txt"))
