"""Presentation of maps: normalised, upsampled, laid over an image."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from legrad.heatmaps import normalize, overlay, suppress, upsample

GREY = Image.new("RGB", (40, 24), (100, 100, 100))


def without_heat(image: Image.Image = GREY) -> np.ndarray:
    """The picture as it lies under heat: muted."""
    return pixels(overlay(image, np.zeros((3, 5))))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e-30, 7e6])
def test_constant_maps_normalise_to_zeros(value: float) -> None:
    with np.errstate(all="raise"):
        seen = normalize(np.full((2, 3, 4), value, dtype=np.float32))
    assert seen.dtype == np.float32
    assert not seen.any()


def test_every_map_is_normalised_by_itself() -> None:
    maps = np.random.default_rng(0).random((3, 2, 5, 5)) * 10.0 ** np.arange(3)[:, None, None, None]
    seen = normalize(maps)
    assert (seen.min(axis=(-2, -1)) == 0).all()
    assert (seen.max(axis=(-2, -1)) == 1).all()
    one = maps[1, 0]
    expected = (one - one.min()) / (one.max() - one.min())
    np.testing.assert_allclose(seen[1, 0], expected, atol=1e-6)


@pytest.mark.parametrize(("h", "w", "factor"), [(4, 4, 8), (3, 5, 7), (1, 4, 16)])
def test_upsampled_cells_are_centred_on_their_patches(h: int, w: int, factor: int) -> None:
    """A ramp over cell centres is the same ramp over pixel centres, up to the outer cells."""
    rows, columns = np.mgrid[:h, :w] + 0.5
    seen = upsample(3 * rows - columns, (h * factor, w * factor))
    assert seen.shape == (h * factor, w * factor)
    fine_rows, fine_columns = (np.mgrid[: h * factor, : w * factor] + 0.5) / factor
    expected = 3 * fine_rows.clip(0.5, h - 0.5) - fine_columns.clip(0.5, w - 0.5)
    np.testing.assert_allclose(seen, expected, atol=1e-4)


def test_upsampling_is_linear_and_keeps_constants() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((2, 4, 6))
    both = upsample(left + 2 * right, (32, 48))
    np.testing.assert_allclose(
        both, upsample(left, (32, 48)) + 2 * upsample(right, (32, 48)), atol=1e-5
    )
    np.testing.assert_allclose(upsample(np.full((4, 6), 0.4), (50, 70)), 0.4, atol=1e-6)


def test_a_hot_patch_is_hottest_in_its_own_pixels() -> None:
    cells = np.zeros((3, 5))
    cells[2, 1] = 1
    row, column = np.unravel_index(upsample(cells, (48, 80)).argmax(), (48, 80))
    assert 32 <= row < 48
    assert 16 <= column < 32


def test_a_zero_map_shows_the_muted_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    seen = without_heat(Image.fromarray(noise))
    assert seen.shape == noise.shape
    assert seen.max() <= 150
    assert np.ptp(seen, axis=-1).mean() < 0.2 * np.ptp(noise.astype(float), axis=-1).mean()
    grey = np.asarray(Image.fromarray(noise).convert("L"), dtype=float)
    assert np.corrcoef(seen.mean(axis=-1).ravel(), grey.ravel())[0, 1] > 0.95


def test_the_peak_is_shown_at_the_given_opacity() -> None:
    hottest = np.array(colormaps["inferno"](255)[:3]) * 255
    seen = pixels(overlay(GREY, np.full((3, 5), 0.02), opacity=0.5))
    assert np.abs(seen - 0.5 * (without_heat() + hottest)).max() <= 1


@pytest.mark.parametrize("ground", [0, 60, 128, 255])
def test_more_heat_is_brighter_in_grey_on_any_picture(ground: int) -> None:
    """So that a grey print and any colour vision can tell."""
    image = Image.new("RGB", (160, 16), (ground, ground, ground))
    ramp = np.linspace(0, 1, 10)[None]
    grey = np.asarray(overlay(image, ramp).convert("L"), dtype=float).mean(axis=0)
    assert (np.diff(grey) >= -1).all()
    assert grey[-1] - grey[0] > 70


def test_a_shared_peak_puts_maps_on_one_scale() -> None:
    weak, strong = np.full((3, 5), 0.1), np.full((3, 5), 0.2)
    change = [
        np.abs(pixels(overlay(GREY, heat, peak=0.2)) - without_heat()).mean()
        for heat in (weak, strong)
    ]
    assert change[0] < 0.8 * change[1]
    own = [pixels(overlay(GREY, heat)) for heat in (weak, strong)]
    assert np.array_equal(own[0], own[1])
    assert np.array_equal(own[1], pixels(overlay(GREY, strong, peak=0.2)))


def test_heat_above_a_shared_peak_is_shown_as_the_peak() -> None:
    seen = overlay(GREY, np.full((3, 5), 9.0), peak=0.2)
    assert np.array_equal(pixels(seen), pixels(overlay(GREY, np.full((3, 5), 0.2))))


def test_a_peak_of_zero_shows_no_heat() -> None:
    assert np.array_equal(pixels(overlay(GREY, np.ones((3, 5)), peak=0.0)), without_heat())


def test_the_box_places_the_grid_and_what_is_outside_is_darker() -> None:
    seen = pixels(overlay(GREY, np.ones((3, 3)), box=(8, 2, 28, 22)))
    hot = np.zeros((24, 40), dtype=bool)
    hot[2:22, 8:28] = True
    assert (seen[hot].mean(axis=-1) > without_heat().max() + 50).all()
    assert (seen[~hot] < without_heat()[0, 0] * 0.5).all()


def test_a_box_beyond_the_image_shows_the_part_that_is_on_it() -> None:
    """A letterboxed input: the grid covers more than the picture."""
    ramp = np.arange(8.0)[:, None] * np.ones(4)
    whole = upsample(ramp, (80, 40))
    np.testing.assert_allclose(upsample(ramp, (40, 40), (0, -20, 40, 60)), whole[20:60], atol=1e-5)


def test_suppression_zeroes_what_the_baseline_is_hot_on_and_keeps_the_rest() -> None:
    baseline = np.array([[0.1, 0.9], [0.5, 1.1]])  # normalised: 0, .8, .4, 1
    heat = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    expected = heat.copy()
    expected[:, 1, 1] = 0
    seen = suppress(heat, baseline, 0.801)
    assert seen.dtype == np.float32
    assert np.array_equal(seen, expected)
    expected[:, 0, 1] = 0
    assert np.array_equal(suppress(heat, baseline, 0.79), expected)
    assert heat.min() == 1
    assert np.array_equal(suppress(heat, np.full((2, 2), 7.0)), heat)
    assert np.array_equal(suppress(heat, baseline, 1.0), heat)


@pytest.mark.parametrize(("shape", "threshold"), [((2, 3), 0.8), ((2, 2), 1.1), ((2, 2), -0.1)])
def test_suppression_refuses(shape: tuple[int, int], threshold: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        suppress(np.ones((1, 2, 2)), np.ones(shape), threshold)


def test_images_of_other_modes_are_shown_in_colour() -> None:
    seen = overlay(GREY.convert("L"), np.ones((3, 5)))
    assert seen.mode == "RGB"


def test_the_inputs_are_not_written_to() -> None:
    image, heat = GREY.copy(), np.random.default_rng(0).random((3, 5))
    kept = heat.copy()
    overlay(image, heat)
    assert np.array_equal(heat, kept)
    assert np.array_equal(pixels(image), pixels(GREY))
