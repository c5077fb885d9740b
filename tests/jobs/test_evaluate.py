"""``legrad evaluate`` on drawn scenes whose masks are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app
from jobs.evaluate import _recommendation
from legrad.mini.world import SceneSpec, render
from legrad.preprocess import ResizeMode
from pipeline.config import RunConfig, SourceConfig
from pipeline.config.loading import validated
from pipeline.errors import RunError, UsageError
from pipeline.fidelity.evaluate import Evaluation, Measured, Variant, Wanted, evaluate
from tests.classifiers import mini_tower, save_classifier

SIDE = 96
OBJECTS = ("boat", "apple")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Six scenes in class folders, with masks of objects and watermarks, and a broken file."""
    folder = tmp_path_factory.mktemp("evaluate")
    for number in range(6):
        name = OBJECTS[number % 2]
        scene = render(SceneSpec(name, "grass", ("watermark",), 40 + number), SIDE)
        masks = {name: scene.object_mask, "watermark": scene.overlay_masks["watermark"]}
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        scene.image.save(folder / "images" / name / f"{number}.png")
        for query, mask in masks.items():
            (folder / "masks" / query).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / "masks" / query / f"{number}.png")
    (folder / "images" / "boat" / "broken.png").write_bytes(b"no image")
    queries = [{"name": name, "role": "class", "prompts": f"a {name}"} for name in OBJECTS]
    data = {
        "model": {"name": "mini", "layers": 1},
        "source": {"format": "folder", "uri": str(folder / "images"), "limit": 100},
        "queries": [*queries, {"name": "watermark", "role": "cue", "prompts": "a watermark"}],
        "output": str(folder / "out"),
    }
    return validated(RunConfig, data, "test")


def _folder(config: RunConfig) -> Path:
    return Path(config.output).parent


@pytest.fixture(scope="module")
def result(config: RunConfig) -> Evaluation:
    wanted = Wanted(20, (2, 2), ("pad",), str(_folder(config) / "masks"))
    return evaluate(config, wanted, lambda text: None)


def test_every_variant_is_measured_once_and_that_of_the_settings_first(result: Evaluation) -> None:
    variants = [one.variant for one in result.measured]
    assert variants[0] == Variant(1, False, "squash")
    assert set(variants) == {
        Variant(layers, distinct, resize)
        for layers in (1, 2)
        for distinct in (False, True)
        for resize in ("squash", "pad")
    }
    assert len(variants) == 8


@pytest.mark.parametrize("mode", [None, "pad"])
def test_a_classifier_of_ones_own(config: RunConfig, tmp_path: Path, mode: str | None) -> None:
    folder = tmp_path / "classifier"
    module = mini_tower(3)
    torch.nn.init.normal_(module.head.weight)
    torch.nn.init.constant_(module.head.bias[2:], 1000.0)  # so that it always says car
    save_classifier(module, ["boat", "apple", "car"], folder)
    model = {"kind": "classifier", "name": str(folder), "layers": 1, "resize": mode}
    data = config.model_dump(include={"source", "output"}, mode="json") | {"model": model}
    own = validated(RunConfig, data, "test")
    result = evaluate(own, Wanted(20, (1, 2), ("squash",)), lambda text: None)
    modes: list[ResizeMode] = ["squash"] if mode is None else ["pad", "squash"]  # each once
    expected = [Variant(layers, None, each) for each in modes for layers in (1, 2)]
    assert [one.variant for one in result.measured] == expected
    assert (result.images, result.labelled) == (6, 6)
    assert [one.accuracy for one in result.measured] == [0] * len(expected)


def test_the_images_are_counted(result: Evaluation) -> None:
    assert (result.images, result.labelled, result.failed) == (6, 6, 1)


def test_the_mini_model_looks_where_it_was_trained_to(result: Evaluation) -> None:
    for one in result.measured:
        assert one.areas.shape == (6, 2)
        assert one.masked.shape == (12, 10)  # an object and a watermark in each image
        assert ((one.areas >= 0) & (one.areas <= 90)).all()
    plain = next(one for one in result.measured if one.variant == Variant(2, False, "squash"))
    assert plain.accuracy == 100
    assert plain.gap.mean() > 5
    assert plain.masked[:, 9].mean() > 60  # pointing


def test_the_gain_is_that_of_the_best_over_the_settings(result: Evaluation) -> None:
    means = [one.gap.mean() for one in result.measured]
    assert result.best.gap.mean() == max(means)
    gain = result.gain()
    assert gain.value == pytest.approx(max(means) - means[0])
    assert gain.low <= gain.value <= gain.high


def test_a_mask_of_another_size_is_refused(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "boat").mkdir()
    Image.fromarray(np.ones((5, 7), bool)).save(tmp_path / "boat" / "0.png")
    with pytest.raises(UsageError, match="96 x 96 pixels, as its image has, found 7 x 5"):
        evaluate(config, Wanted(20, (1,), (), str(tmp_path)), lambda text: None)


def test_one_class_cannot_be_lost(config: RunConfig) -> None:
    alone = config.model_copy(update={"queries": config.queries[1:]})
    with pytest.raises(UsageError, match="at least two of role class"):
        evaluate(alone, Wanted(5, (1,)), lambda text: None)


def test_no_image_can_be_decoded(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "boat").mkdir()
    (tmp_path / "boat" / "a.png").write_bytes(b"no image")
    source = validated(SourceConfig, {"format": "folder", "uri": str(tmp_path)}, "test")
    with pytest.raises(RunError, match="none of 1 images"):
        evaluate(config.model_copy(update={"source": source}), Wanted(5, (1,)), lambda text: None)


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [("--layers", "2,0", "'0'"), ("--layers", "two", "'two'"), ("--resize", "crop", "'crop'")],
)
def test_options_that_mean_nothing_are_refused(
    tmp_path: Path, option: str, value: str, fault: str
) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: {name: mini}\nsource: {format: folder, uri: images}\noutput: out\n"
        "queries: [{name: boat, role: class}, {name: car, role: class}]\n"
    )
    ran = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run.yaml"), option, value])
    assert isinstance(ran.exception, UsageError)
    assert fault in str(ran.exception)


def _measured(layers: int, gaps: np.ndarray) -> Measured:
    areas = np.stack([50 + gaps, np.full(len(gaps), 50.0)], axis=1)
    return Measured(Variant(layers, False, "squash"), areas, np.empty((0, 10)), 100.0, 0.01)


def test_only_a_gain_beyond_chance_is_recommended() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(10, 5, 60)
    for gain, said in ((8.0, "model.layers: 4"), (0.1, "keep the settings")):
        other = own + gain + rng.normal(0, 3, 60)
        result = Evaluation((_measured(2, own), _measured(4, other)), 60, 60, 0, ())
        assert said in _recommendation(result)
    alone = Evaluation((_measured(2, own), _measured(1, own - 5)), 60, 60, 0, ())
    assert "keep the settings" in _recommendation(alone)
