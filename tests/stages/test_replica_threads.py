"""On a CPU a batch is shared among threads, and the result is that of the whole batch."""

from collections.abc import Iterator

import pytest
import torch

from legrad import LeGrad, load_model
from legrad.queries.selection import Selection
from pipeline.config import ModelConfig
from pipeline.config.loading import validated
from pipeline.stages.replica import ReplicaSettings, _single_threads

SELECTIONS = (
    Selection(),
    Selection("own_label", (True, True, False), {"a": 0, "b": 1}),
    Selection("predicted", (True, True, False)),
)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch has two threads here, and no pool of an earlier test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    _single_threads.cache_clear()
    yield
    _single_threads.cache_clear()
    torch.set_num_threads(before)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda selection: selection.mode)
@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_shares_of_a_batch_are_explained_as_the_whole(
    two_threads: None, selection: Selection, resize: str
) -> None:
    config = validated(ModelConfig, {"name": "mini", "resize": resize}, "test")
    model = load_model("mini", device="cpu", resize=config.resize)
    legrad = LeGrad(model)
    generator = torch.Generator().manual_seed(0)
    size = (5, 3, *model.preprocess.size)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    directions = model.encode_text(["a boat", "a fish", "water"])
    sizes = [(100 + 20 * number, 90) for number in range(5)]
    select = selection.select(["a", "b", None, "b", "a"])
    whole = legrad.explain(pixels, directions, select=select, sizes=sizes)
    for threads in (2, 3, 5):
        settings = ReplicaSettings(config, "cpu", threads, 8)
        shared = settings.explain(legrad, pixels, directions, select=select, sizes=sizes)
        assert torch.get_num_threads() == 2
        assert shared.layers == whole.layers
        for name in ("maps", "scores", "image_features", "selected", "boxes"):
            expected, found = getattr(whole, name), getattr(shared, name)
            torch.testing.assert_close(found, expected, equal_nan=True, msg=name)
