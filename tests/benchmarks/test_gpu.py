"""The GPU benchmark runs to its end on a CPU, so that it works when there is a GPU."""

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--no-published"])
    shown = capsys.readouterr().out
    for table in ("fp32: matrix", "bf16: matrix", "bf16 against fp32", "decoding for", "bare loop"):
        assert table in shown
