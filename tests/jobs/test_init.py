"""From a folder of pictures to scores, by the configuration that ``legrad init`` writes."""

from pathlib import Path

from legrad.mini.world import SceneSpec, render
from pipeline import open_results
from pipeline.config.loading import load_config
from tests.in_process import run
from tests.jobs.command import legrad


def test_init_and_run(tmp_path: Path) -> None:
    for number, name in enumerate(["boat", "apple"] * 6):
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        scene = render(SceneSpec(name, "grass", (), number), 96)
        scene.image.save(tmp_path / "pictures" / name / f"{number}.png")
    done = legrad("init", "pictures", "--model", "mini", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 image files, 2 classes (folders)" in done.stdout
    assert "legrad run run.yaml --check" in done.stdout
    again = legrad("init", "pictures", "--model", "mini", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert run(load_config(tmp_path / "run.yaml")).rows == 12
    results = open_results(str(tmp_path / "heatmaps"))
    labels = results.images(["label"])["label"]
    means = results.scores(["boat", "apple"]).groupby(labels).mean()
    assert means.loc["boat", "boat"] > means.loc["apple", "boat"]
    assert means.loc["apple", "apple"] > means.loc["boat", "apple"]
