"""How maps are compared."""

from torch import Tensor


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference of any cell, relative to the maximum of its own expected map."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    expected = expected.double()
    peaks = expected.amax(dim=(-2, -1), keepdim=True)
    assert peaks.min() > 0, "an expected map is zero"
    return float(((actual.double() - expected).abs() / peaks).max())


def rank_correlation(left: Tensor, right: Tensor) -> float:
    """Spearman's rank correlation of two vectors."""
    ranks = [values.argsort().argsort().double() for values in (left, right)]
    a, b = (rank - rank.mean() for rank in ranks)
    return float(a @ b / (a.norm() * b.norm()))
