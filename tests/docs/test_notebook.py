"""docs/audit-example.ipynb runs from top to bottom, and finds what was planted."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "audit-example.ipynb"


def outputs(notebook: Any) -> list[str]:
    """Plain text of every output."""
    found = []
    for cell in notebook.cells:
        for one in cell.get("outputs", []):
            found.append(str(one.get("text") or one.get("data", {}).get("text/plain", "")))
    return found


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=where).execute()
    text = "\n".join(outputs(notebook))
    assert "400 explained" in text
    for pair in (("frozen fish", "watermark"), ("bird", "border")):
        assert any(all(word in line for word in pair) for line in text.splitlines())
    assert (tmp_path / "example" / "groups.parquet").is_file()


def test_committed_notebook_shows_its_outputs_and_is_small() -> None:
    import json

    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < 500_000
