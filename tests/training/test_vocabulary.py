"""The maker of the vocabulary, on a small dictionary in WordNet's format."""

from pathlib import Path

import pytest

from training import vocabulary

NOUNS = """\
  1 a line of the notice
00000001 03 n 01 entity 0 000 | all
00000002 03 n 01 thing 0 001 @ 00000001 n 0000 | a thing
00000003 06 n 01 artifact 0 001 @ 00000002 n 0000 | a made thing
00000004 06 n 01 vehicle 0 001 @ 00000003 n 0000 | it moves
00000005 06 n 02 car 0 motorcar 0 002 @ 00000004 n 0000 %p 00000006 n 0000 | a car has a wheel
00000006 06 n 01 wheel 0 001 @ 00000004 n 0000 | it turns; "the car lost a wheel"
00000007 18 n 01 dullard 0 001 @ 00000002 n 0000 | a person
00000008 06 n 01 Ferrari 0 001 @ 00000005 n 0000 | a make of car
00000009 06 n 01 badthing 0 001 @ 00000004 n 0000 | (ethnic slur) an offensive word
00000010 07 n 01 hue 0 001 @ 00000002 n 0000 | colour
00000011 04 n 01 going 0 001 @ 00000002 n 0000 | an act
"""
ADJECTIVES = """\
00000001 00 a 01 red(p) 0 002 = 00000010 n 0000 & 00000002 a 0000 | of the colour of blood
00000002 00 s 01 crimson 0 001 & 00000001 a 0000 | deep red
00000003 00 a 01 honest 0 000 | not lying
"""
SENSES = """\
car%1:06:00:: 00000005 1 71
motorcar%1:06:00:: 00000005 1 0
wheel%1:06:00:: 00000006 1 3
badthing%1:06:00:: 00000009 1 9
dullard%1:18:00:: 00000007 1 9
going%1:04:00:: 00000011 1 9
red%3:00:00:: 00000001 1 5
crimson%5:00:00:red:00 00000002 1 0
honest%3:00:00:: 00000003 1 5
"""


def test_visible_words_with_what_is_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("data.noun", NOUNS), ("data.adj", ADJECTIVES), ("index.sense", SENSES)):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(vocabulary, "WORDS", tmp_path / "words.tsv")
    vocabulary.main(tmp_path)
    text = (tmp_path / "words.tsv").read_text()
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    rows = {number: (up, parts, phrases) for number, up, parts, phrases in lines}
    assert rows["n00000005"] == ("n00000004", "n00000006", "a car|a motorcar")
    assert rows["n00000006"][2] == "a wheel"
    assert rows["a00000001"][2] == "something red"
    assert rows["a00000002"][2] == "something crimson"
    assert rows["n00000001"] == ("", "", "")
    assert not {"n00000007", "n00000008", "n00000009", "n00000011", "a00000003"} & set(rows)
    assert "Princeton" in text


def test_articles_follow_the_sound() -> None:
    words = ("used-car", "unicorn", "umbrella", "hourglass", "horse", "owl", "one shot", "usher")
    assert [vocabulary._phrase(word, "thing").split()[0] for word in words] == [
        *("a", "a", "an", "an", "a", "an", "a", "an"),
    ]
