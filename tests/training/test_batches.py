"""What the mini model learns from: marks, painted scenes, and the loss of places."""

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from legrad import mini
from legrad.method.explainer import LeGrad
from legrad.mini.world import THINGS, SceneSpec, render
from legrad.models.load import from_open_clip
from training.batches import WHOLE, draw_batch
from training.objective import (
    Features,
    features_of,
    heat_loss,
    normalised,
    place_loss,
    truth_loss,
)
from training.scenes import MARK_SIDE, Pool, random_specs, render_pool

SIDE, PATCH = 64, 8


@pytest.fixture(scope="module")
def pool() -> Pool:
    specs = random_specs(np.random.default_rng(1), 60, first_seed=500)
    return render_pool(specs, 96, 1)


def plain_batch(pool: Pool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scenes' marks before painting, and their names as a table (scenes, things)."""
    bits = torch.arange(len(THINGS))[None, :, None, None]
    marks = ((torch.from_numpy(pool.marks.astype(np.int64))[:, None] >> bits) & 1).float()
    named = [[t == s.object or t in s.overlays for t in THINGS] for s in pool.specs]
    return marks, torch.tensor(named)


def test_marks_are_the_masks(pool: Pool) -> None:
    marks, named = plain_batch(pool, 0)
    assert not marks.any(-1).any(-1)[~named].any()  # nothing is marked that is not there
    scene = render(SceneSpec("cat", "sand", ("ruler",), 3), 192)
    alone = render_pool([SceneSpec("cat", "sand", ("ruler",), 3)], 96, 1).marks[0]
    for name, mask in (("cat", scene.object_mask), ("ruler", scene.overlay_masks["ruler"])):
        marked = alone >> np.uint32(THINGS.index(name)) & 1 == 1
        true = mask.reshape(MARK_SIDE, 4, MARK_SIDE, 4).mean(axis=(1, 3)) > 0.5
        assert (marked & true).sum() > 0.9 * true.sum()
        assert (marked & ~true).sum() < 0.6 * true.sum()


def test_painting_takes_away_what_it_covers(pool: Pool) -> None:
    marks, named = plain_batch(pool, 0)
    lost = beside = 0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        batch = draw_batch(pool, range(60), SIDE, PATCH, generator)
        assert batch.pixels.shape == (60, 3, SIDE, SIDE)
        assert batch.pixels.min() >= 0
        assert batch.pixels.max() <= 255
        left = batch.shown.sum((2, 3)) / marks.sum((2, 3)).clamp(min=1)
        assert (batch.shown <= marks).all()
        for row, spec in enumerate(batch.specs):
            for i, thing in enumerate(THINGS):
                kept = thing == spec.object or thing in spec.overlays
                gone = bool(named[row, i]) and marks[row, i].any() and left[row, i] < WHOLE
                assert kept == (bool(named[row, i]) and not gone)
                lost += gone
            assert spec.background == pool.specs[row].background
        beside += int((left[named & marks.any(-1).any(-1)] < 1).sum())
    assert lost > 30  # of 240 scenes
    assert beside > lost  # some things lose a little and stay


def test_the_same_generator_gives_the_same_batch(pool: Pool) -> None:
    first, second = (
        draw_batch(pool, range(9), SIDE, PATCH, torch.Generator().manual_seed(5)) for _ in "ab"
    )
    assert first.specs == second.specs
    assert torch.equal(first.pixels, second.pixels)


def test_the_loss_of_places_falls_when_patches_say_what_is_there() -> None:
    model = open_clip.CLIP(**json.loads((mini.FOLDER / mini.CONFIG).read_text()))
    text = F.normalize(torch.randn(len(THINGS), 128, generator=torch.Generator().manual_seed(0)))
    shown = torch.zeros(1, len(THINGS), 4, 4)
    shown[0, 0, :2] = 1  # the first thing fills the upper half
    upper, lower = text[0].expand(8, -1), -text[0].expand(8, -1)
    none = torch.zeros(1, 0, 16)
    right = Features(text[:1], text[:1], [torch.cat([upper, lower])[None]], none)
    wrong = Features(text[:1], text[:1], [torch.cat([lower, upper])[None]], none)
    assert place_loss(model, right, text, shown) < place_loss(model, wrong, text, shown) - 0.5


def test_features_are_those_of_the_model() -> None:
    model = open_clip.CLIP(**json.loads((mini.FOLDER / mini.CONFIG).read_text())).eval()
    pixels = normalised(torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8))
    directions = F.normalize(torch.randn(2, 3, 128), dim=-1)
    with torch.no_grad():
        found = features_of(model, pixels, directions, blocks=2)
        expected = F.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(found.answer, expected)
    assert [tuple(patches.shape) for patches in found.patches] == [(2, 144, 128)] * 2
    explainer = LeGrad(from_open_clip(model, name="untrained"), layers=2)
    for image, queries, maps in zip(pixels, directions, found.maps, strict=True):
        drawn = explainer.explain(image[None], queries).maps[0].flatten(1)
        torch.testing.assert_close(drawn / drawn.sum(), maps / maps.sum(), rtol=1e-3, atol=1e-6)
    truth = torch.tensor([[1.0], [0.0]])
    assert truth_loss(model, found.answer, found.answer[:1], truth).isfinite()


def test_the_loss_of_heat_is_least_where_the_thing_is() -> None:
    shown = torch.zeros(1, 3, 16)
    shown[:, :2, :4] = 1  # the third thing is not there
    on, off = shown.clone(), 1 - shown
    assert heat_loss(on, shown) == pytest.approx(0, abs=1e-5)
    assert heat_loss(off, shown) > 3
    part = on.clone()
    part[:, :2, 0] = 9  # a peak within the thing
    assert 0.1 < heat_loss(part, shown) < heat_loss(off, shown)
    assert heat_loss(off, torch.zeros_like(shown)) == 0
