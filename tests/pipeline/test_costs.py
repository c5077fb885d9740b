"""The arithmetic of costs, by hand."""

import pytest

from legrad.models import catalog
from pipeline.costs import BYTES_PER_GET, estimate, forward_flops, passes


def test_a_forward_pass_of_a_base_model() -> None:
    arch = catalog.architecture("ViT-B-16")
    assert forward_flops(arch, (224, 224)) == 12 * (24 * 197 * 768**2 + 4 * 197**2 * 768)
    assert forward_flops(arch, (224, 224)) / 1e9 == pytest.approx(34.9, abs=0.1)
    assert forward_flops(arch, (448, 448)) > 4 * forward_flops(arch, (224, 224))


@pytest.mark.parametrize(("maps", "measured"), [(1, 1.15), (4, 1.37), (16, 1.91), (64, 4.14)])
def test_the_fit_is_near_what_was_measured(maps: int, measured: float) -> None:
    arch = catalog.architecture("ViT-B-16")
    assert passes(arch, maps, None) == pytest.approx(measured, rel=0.06)
    assert passes(arch, maps, 4) > passes(arch, maps, 2)


def test_a_run_added_up() -> None:
    costs = estimate(72e9, 1_000_000, 0.0036, [1, BYTES_PER_GET, BYTES_PER_GET + 1], 100)
    assert costs.flops == 72e15
    assert costs.gpu_hours == pytest.approx(1.0)
    assert costs.decode_hours == pytest.approx(1.0)
    assert costs.cores_per_gpu == pytest.approx(1.0)
    assert (costs.gets, costs.puts) == (4, 200)
    assert estimate(1, 1, None, [], 1).cores_per_gpu is None
