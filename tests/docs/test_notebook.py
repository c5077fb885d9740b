"""The notebooks in docs/ run from top to bottom, and find what was planted."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "audit-example.ipynb"
OF_CLASSIFIER = ROOT / "docs" / "classifier-example.ipynb"


def outputs(notebook: Any) -> list[str]:
    """Plain text of every output."""
    found = []
    for cell in notebook.cells:
        for one in cell.get("outputs", []):
            found.append(str(one.get("text") or one.get("data", {}).get("text/plain", "")))
    return found


def executed(notebook: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Plain text of all outputs of a notebook that is run in a folder."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    content = nbformat.read(notebook, 4)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(content, timeout=1200, kernel_name="python3", resources=where).execute()
    return "\n".join(outputs(content))


@pytest.mark.slow
def test_from_images_to_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = executed(NOTEBOOK, tmp_path, monkeypatch)
    assert "400 explained" in text
    for pair in (("frozen fish", "watermark"), ("bird", "border")):
        assert any(all(word in line for word in pair) for line in text.splitlines())
    assert (tmp_path / "example" / "groups.parquet").is_file()


@pytest.mark.slow
def test_from_fine_tuning_to_the_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = executed(OF_CLASSIFIER, tmp_path, monkeypatch)
    assert "1,000 rows, 1,000 explained" in text
    flags = {}
    for line in text.splitlines():
        for pair in ("frozen fish watermark", "car barcode"):
            if " ".join(line.split()).startswith(pair) and ("True" in line or "False" in line):
                flags[pair] = "True" in line
    assert flags == {"frozen fish watermark": True, "car barcode": False}


@pytest.mark.parametrize("path", [NOTEBOOK, OF_CLASSIFIER], ids=lambda path: path.name)
def test_committed_notebook_shows_its_outputs_and_is_small(path: Path) -> None:
    import json

    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    assert path.stat().st_size < 500_000
