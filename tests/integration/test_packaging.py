"""What users install, and the folders they stand in."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline import open_results
from tests.data import CLASSES_AND_CUES, samples, tar_bytes

pytestmark = pytest.mark.starts

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_configurations_and_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"legrad", "pipeline", "jobs"}
    for file in ROOT.glob("configs/**/*.yaml"):
        assert f"pipeline/{file.relative_to(ROOT)}" in names
    assert "legrad/mini/weights.safetensors" in names
    for place in ("templates", "static"):
        for file in (ROOT / "pipeline/report" / place).iterdir():
            assert f"pipeline/report/{place}/{file.name}" in names
    assert {"legrad/py.typed", "pipeline/py.typed", "jobs/py.typed"} <= names
    code = (
        "import pipeline; from pipeline.config.loading import load_config, packaged_config;"
        "assert pipeline.__file__.startswith(sys.argv[1]), pipeline.__file__;"
        "assert len(load_config(packaged_config('demo.yaml')).queries) == 37;"
        "from legrad import load_model; load_model('mini')"
    )
    site = str(tmp_path / "site")
    program = f"import sys; sys.path.insert(0, sys.argv[1]); {code}"
    subprocess.run([sys.executable, "-c", program, site], check=True, cwd=tmp_path)


def test_folders_of_the_users_with_our_names_are_not_imported(tmp_path: Path) -> None:
    """Ray puts the driver's folder on its workers' path."""
    for module in ("pipeline", "legrad", "jobs"):
        foreign = tmp_path / module
        foreign.mkdir()
        (foreign / "__init__.py").write_text(f"raise RuntimeError('the wrong {module}')")
    (tmp_path / "0.tar").write_bytes(tar_bytes(samples(["a", "b"])))
    data = {
        "model": {"name": "mini"},
        "source": {"format": "webdataset", "uri": "0.tar"},
        "queries": list(CLASSES_AND_CUES),
        "output": "out",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    command = Path(sys.executable).with_name("legrad")
    done = subprocess.run(
        [str(command), "run", "run.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(open_results(str(tmp_path / "out"))) == 2
    assert "mean nothing" in done.stderr + done.stdout
