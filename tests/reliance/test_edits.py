"""Files of edits and texts are read as they were written."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.reliance.edits import read_texts, write_texts
from pipeline.storage.location import open_location


@pytest.mark.parametrize("name", ["fish", "file", "allow_pickle", "self"])
def test_texts_of_any_query_name(tmp_path: Path, name: str) -> None:
    directions = np.eye(3, dtype=np.float32)
    file = open_location(str(tmp_path / "texts.npz"))
    write_texts(file, {name: directions[0], "cat": directions[1]})
    texts = read_texts(file)
    assert list(texts) == [name, "cat"]
    assert texts[name].dtype == np.float32
    np.testing.assert_array_equal(texts[name], directions[0])
