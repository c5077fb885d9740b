"""The search for a batch size, on a device that is a formula."""

import pytest
import torch

from pipeline.stages import replica


class Device:
    """Takes ``fixed + size * each`` seconds for a batch, and holds ``most`` images."""

    def __init__(self, fixed: float, each: float, most: int = 10**6) -> None:
        self.fixed, self.each, self.most = fixed, each, most
        self.clock = 0.0

    def __call__(self, size: int) -> None:
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.clock += self.fixed + size * self.each


@pytest.mark.parametrize(
    ("device", "size"),
    [
        (Device(fixed=0.0, each=0.01), 8),  # a CPU: nothing gained
        (Device(fixed=0.1, each=0.001), 256),  # launches cost more than images
        (Device(fixed=0.1, each=0.001, most=100), 64),  # memory ends it
        (Device(fixed=0.012, each=0.004), 32),
    ],
)
def test_the_smallest_size_that_is_about_as_fast(
    device: Device, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica.time, "perf_counter", lambda: device.clock)
    found, rate = replica.fastest_batch_size(device)
    assert found == size
    assert rate == pytest.approx(size / (device.fixed + size * device.each))


def test_a_device_that_holds_nothing() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        replica.fastest_batch_size(Device(0, 0, most=4))
