"""The vocabulary's features: encoded once, from the run's own model, words that differ."""

from pathlib import Path

import numpy as np
import pytest

from legrad import load_model
from pipeline.audit import vocabulary
from pipeline.audit.suspicion import FEWEST_WORDS
from pipeline.audit.vocabulary import distinct_rows, text_features
from pipeline.config.model_settings import ModelConfig
from pipeline.errors import UsageError
from pipeline.stages import replica
from pipeline.storage.location import open_location


def test_features_are_encoded_once_and_of_the_runs_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept = ModelConfig(name="mini"), open_location(str(tmp_path))
    digest = load_model("mini").digest
    words = vocabulary.vocabulary()
    first = text_features(model, digest, words, kept)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(len(words)), abs=1e-4)
    assert len(distinct_rows(first)) > FEWEST_WORDS
    monkeypatch.setattr(replica, "ReplicaSettings", None)
    assert np.array_equal(text_features(model, digest, words, kept), first)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="weights"):
        text_features(ModelConfig(name="mini"), "0" * 64, ["a dog"], open_location(str(tmp_path)))


def test_words_that_the_model_cannot_tell_apart_count_once() -> None:
    rows = np.array([[1.0, 0], [0, 1], [1, 0], [0.6, 0.8]])
    assert distinct_rows(rows).tolist() == [0, 1, 3]


def test_the_vocabulary_has_no_repeats() -> None:
    words = vocabulary.vocabulary()
    assert len(set(words)) == len(words) > 300
    assert not [word for word in words if word.startswith("#") or word != word.strip()]
