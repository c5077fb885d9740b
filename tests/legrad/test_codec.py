"""One byte a cell: what is lost, and what is refused."""

import numpy as np
import pytest

from legrad import decode_maps, encode_maps
from legrad.heatmaps.codec import LEVELS


def bound(maps: np.ndarray) -> np.ndarray:
    """peak / 510, and what float32 itself costs."""
    peaks = maps.astype(np.float64).max(axis=(-2, -1), keepdims=True)
    return peaks / 510 * (1 + 1e-4) + np.finfo(np.float32).tiny


def check(maps: np.ndarray) -> None:
    cells, peaks = encode_maps(maps)
    assert (cells.dtype, peaks.dtype) == (np.uint8, np.float32)
    assert cells.shape == maps.shape
    assert np.shape(peaks) == maps.shape[:-2]
    decoded = decode_maps(cells, peaks)
    assert decoded.dtype == np.float32
    assert (np.abs(decoded.astype(np.float64) - maps) <= bound(maps)).all()
    np.testing.assert_allclose(decoded.max(axis=(-2, -1)), peaks, rtol=1e-6)
    positive = maps.max(axis=(-2, -1)) > 0
    assert (cells.max(axis=(-2, -1))[positive] == LEVELS).all()


@pytest.mark.parametrize("seed", range(40))
def test_round_trip_of_random_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lead = tuple(rng.integers(1, 4, size=rng.integers(0, 3)))
    shape = (*lead, *rng.integers(1, 20, size=2))
    spread = rng.choice([0.1, 1, 8])  # of the logarithm, within a map
    scale = 10.0 ** rng.uniform(-30, 30, size=(*lead, 1, 1))
    maps = np.exp(spread * rng.standard_normal(shape)) * scale
    maps[rng.random(shape) < 0.2] = 0
    check(maps)
    check(maps.astype(np.float32))


def test_round_trip_of_half_floats() -> None:
    check(np.random.default_rng(0).random((3, 5, 5)).astype(np.float16))


def test_rounding_is_to_the_nearest_level() -> None:
    steps = np.array([[0, 0.49, 0.51, 1, 100.49, 100.51, 254.4, 255]])
    cells, peak = encode_maps(steps)
    assert cells.tolist() == [[0, 0, 1, 1, 100, 101, 254, 255]]
    assert peak == 255


def test_every_map_has_its_own_peak() -> None:
    maps = np.array([[[1.0, 2.0]], [[10.0, 20.0]]])
    cells, peaks = encode_maps(maps)
    assert peaks.tolist() == [2, 20]
    assert np.array_equal(cells[0], cells[1])


def test_zero_and_constant_maps() -> None:
    maps = np.zeros((2, 4, 4), dtype=np.float32)
    maps[1] = 0.3
    with np.errstate(all="raise"):
        cells, peaks = encode_maps(maps)
    assert peaks[0] == 0
    assert not cells[0].any()
    assert (cells[1] == LEVELS).all()
    np.testing.assert_allclose(decode_maps(cells, peaks), maps, rtol=1e-6)


def test_encoding_what_was_decoded_changes_nothing() -> None:
    maps = np.random.default_rng(0).random((6, 7, 7)).astype(np.float32)
    cells, peaks = encode_maps(maps)
    again, peaks_again = encode_maps(decode_maps(cells, peaks))
    assert np.array_equal(cells, again)
    np.testing.assert_allclose(peaks_again, peaks, rtol=1e-6)


def test_no_maps() -> None:
    cells, peaks = encode_maps(np.zeros((0, 4, 4), dtype=np.float32))
    assert decode_maps(cells, peaks).shape == (0, 4, 4)


def test_the_input_is_not_written_to() -> None:
    maps = np.random.default_rng(0).random((2, 3, 3))
    kept = maps.copy()
    encode_maps(maps)
    assert np.array_equal(maps, kept)


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, -np.inf])
def test_refused_values(value: float) -> None:
    maps = np.ones((2, 3, 3))
    maps[1, 2, 0] = value
    with pytest.raises(ValueError, match="finite and non-negative"):
        encode_maps(maps)
