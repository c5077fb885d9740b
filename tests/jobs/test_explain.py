"""``legrad explain`` and ``legrad models`` as a user meets them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data as photographs
from typer.testing import CliRunner

from jobs import models
from jobs.cli import app
from jobs.explain import ViewOptions, draw
from jobs.options import ModelOptions
from legrad import LeGrad, list_models, load_classifier, load_model
from legrad.heatmaps import normalize, overlay
from legrad.heatmaps.layout import lay_out
from legrad.mini.world import SceneSpec, render
from pipeline.errors import RunError, UsageError
from tests.config.test_config import classifier_folder
from tests.data import encoded, picture
from tests.jobs.command import legrad

TEXTS = ("a boat", "a watermark")
ORIENTATION = 0x0112


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two scenes, and three things that are none."""
    specs = {
        "boat.png": SceneSpec("boat", "water", ("watermark",), 3),
        "apple.png": SceneSpec("apple", "grass", (), 4),
    }
    for name, spec in specs.items():
        render(spec, 160).image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "half.jpg").write_bytes(encoded(picture(1, (400, 300)))[:3000])
    return tmp_path


def run(
    folder: Path,
    images: list[str],
    *,
    out: str | None = "out.png",
    maps: str | None = None,
    view: ViewOptions | None = None,
    **model: Any,
) -> bool:
    """`draw` with paths inside a folder."""
    inside = [str(folder / name) for name in images]
    options = ModelOptions(**({"model": "mini"} | model))
    target = None if out is None else str(folder / out)
    saved = None if maps is None else str(folder / maps)
    return draw(inside, TEXTS, target, saved, options.config(), view or ViewOptions())


def test_broken_images_are_named_and_the_others_done(
    scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scenes)
    apple = (scenes / "apple.png").as_uri()
    images = ["boat.png", "notes.txt", "absent.png", "half.jpg", apple]
    assert not draw(images, TEXTS, None, "maps.npz", ModelOptions("mini").config(), ViewOptions())
    said = capsys.readouterr()
    for words in (
        "warning: model mini was trained on the demo's drawn scenes only",
        "notes.txt: not explained: not_an_image",
        "absent.png: not explained",
        "half.jpg: not explained: truncated",
    ):
        assert words in said.err
    assert "explained.png: 2 images, 2 queries" in said.out
    with Image.open("explained.png") as figure:
        layout = lay_out([(160, 160)] * 2, 3, 300)
        assert figure.size == (layout.width, layout.height)
    with np.load("maps.npz") as saved:
        assert saved["images"].tolist() == ["boat.png", apple]
        assert saved["queries"].tolist() == list(TEXTS)
        assert saved["sizes"].tolist() == [[160, 160]] * 2
        assert saved["boxes"].tolist() == [[0, 0, 160, 160]] * 2
        assert not saved["is_baseline"].any()
        about = json.loads(str(saved["about"]))
    assert about["model"] == "mini"
    assert len(about["weights_sha256"]) == 64


@pytest.mark.starts
def test_the_command_never_imports_ray_and_its_exit_code_tells_of_failures(scenes: Path) -> None:
    code = (
        "import sys, jobs.cli\n"
        "sys.argv = ['legrad', 'explain', *sys.argv[1:], '-q', 'a boat', '--model', 'mini']\n"
        "code = jobs.cli._code()\n"
        "assert 'ray' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", code, "boat.png", "notes.txt", "-o", "x.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=scenes, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "x.jpg: 1 image, 1 query"
    with Image.open(scenes / "x.jpg") as figure:
        assert figure.format == "JPEG"


def test_one_image_names_its_figure(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scenes)
    assert draw(["boat.png"], TEXTS, None, None, ModelOptions("mini").config(), ViewOptions())
    assert (scenes / "boat.legrad.png").exists()


def test_saved_maps_are_those_of_the_library(scenes: Path) -> None:
    assert run(scenes, ["boat.png"], maps="m.npz", view=ViewOptions(baseline="an image"))
    model = load_model("mini")
    pixels = torch.from_numpy(model.preprocess(Image.open(scenes / "boat.png")))[None]
    expected = LeGrad(model).explain(pixels, model.encode_text([*TEXTS, "an image"]))
    with np.load(scenes / "m.npz") as saved:
        assert saved["maps"].dtype == np.float32
        np.testing.assert_allclose(saved["maps"], expected.maps.numpy(), atol=1e-9, rtol=1e-4)
        np.testing.assert_allclose(saved["scores"], expected.scores.numpy(), atol=1e-6)
        assert saved["is_baseline"].tolist() == [False, False, True]


def shown(figure: Path, rows: list[tuple[int, int]], columns: int) -> list[list[np.ndarray]]:
    """What each cell of a figure shows."""
    with Image.open(figure) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    return [
        [pixels[c.top : c.top + c.height, c.left : c.left + c.width] for c in cells]
        for cells in lay_out(rows, columns, 300).cells
    ]


def test_suppression_changes_the_figure_where_the_baseline_is_hot_and_no_saved_map(
    scenes: Path,
) -> None:
    for threshold in (None, 0.8):
        name = f"{threshold}"
        view = ViewOptions(baseline="an image", suppress=threshold, scale="map")
        assert run(scenes, ["boat.png"], out=f"{name}.png", maps=f"{name}.npz", view=view)
    with np.load(scenes / "None.npz") as plain, np.load(scenes / "0.8.npz") as other:
        maps = plain["maps"]
        assert np.array_equal(maps, other["maps"])
    hot = normalize(maps[0, -1]) > 0.8
    assert 0 < hot.mean() < 0.6
    before, after = (shown(scenes / f"{name}.png", [(160, 160)], 4)[0] for name in ("None", "0.8"))
    picture_before, one_before, _, baseline_before = before
    picture_after, one_after, _, baseline_after = after
    assert np.array_equal(picture_before, picture_after)
    assert not np.array_equal(one_before, one_after)
    assert np.array_equal(baseline_before, baseline_after)


def test_suppression_without_a_baseline_takes_the_empty_prompt(scenes: Path) -> None:
    assert run(scenes, ["boat.png"], maps="m.npz", view=ViewOptions(suppress=0.8))
    with np.load(scenes / "m.npz") as saved:
        assert saved["queries"].tolist() == [*TEXTS, ""]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "--model.*legrad models"),
        ({"model": "ViT-B-32"}, "needs an open_clip tag or a weights file"),
        ({"model": "ViT-B-33", "pretrained": "openai"}, "Did you mean ViT-B-32"),
        ({"model": "ViT-B-32", "pretrained": "/nowhere/w.safetensors"}, "no weights file"),
        ({"layers": 9}, "mini has 4 blocks"),
        ({"size": 100}, "multiples of the patch"),
        ({"resize": "stretch"}, "resize.*stretch"),
        ({"out": "out.txt"}, "expected a name ending in png"),
        ({"out": "boat.png"}, "boat.png"),
        ({"maps": "m.npy"}, "expected a name ending in npz"),
        ({"view": ViewOptions(scale="all")}, "expected one of row, column, figure, map"),
    ],
)
def test_what_the_user_can_mend(scenes: Path, change: dict[str, Any], words: str) -> None:
    before = sorted(scenes.iterdir())
    with pytest.raises(UsageError, match=f"(?s){words}"):
        run(scenes, ["boat.png"], **change)
    assert sorted(scenes.iterdir()) == before


def test_no_image_at_all_is_a_failure_that_says_why(scenes: Path) -> None:
    with pytest.raises(RunError, match=r"(?s)no image.*notes\.txt: not_an_image.*absent"):
        run(scenes, ["notes.txt", "absent.png"])
    with pytest.raises(UsageError, match="none of them empty"):
        draw(
            [str(scenes / "boat.png")],
            [" "],
            None,
            None,
            ModelOptions("mini").config(),
            ViewOptions(),
        )


def save_random(name: str, path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)


TAGGED = ("ViT-B-32", ("--tag", "laion2b_s34b_b79k"))


@pytest.mark.parametrize(
    ("name", "tag"), [("ViT-S-32-alt", ()), pytest.param(*TAGGED, marks=pytest.mark.slow)]
)
def test_real_photographs_with_a_local_model(
    name: str, tag: tuple[str, ...], tmp_path: Path
) -> None:
    """Three photographs, one stored on its side: each cell shows its own, upright and whole."""
    save_random(name, tmp_path / "w.safetensors")
    images = {
        key: Image.fromarray(getattr(photographs, key)()) for key in ("chelsea", "coffee", "rocket")
    }
    for key, image in images.items():
        exif = Image.Exif()
        exif[ORIENTATION] = 6 if key == "coffee" else 1
        stored = image.transpose(Image.Transpose.ROTATE_90) if key == "coffee" else image
        stored.save(tmp_path / f"{key}.jpg", quality=95, exif=exif)
    done = legrad(
        *("explain", *(f"{key}.jpg" for key in images), "-q", "a cat", "-q", "a cup"),
        *("--model", name, *tag, "--pretrained", "w.safetensors", "--resize", "center_crop"),
        *("-o", "fig.png", "--save-maps", "m.npz"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with np.load(tmp_path / "m.npz") as saved:
        maps, boxes, sizes = saved["maps"], saved["boxes"], saved["sizes"]
    assert maps.shape == (3, 2, 7, 7)
    assert np.isfinite(maps).all()
    cells = shown(tmp_path / "fig.png", [image.size for image in images.values()], 3)
    for i, image in enumerate(images.values()):
        width, height = image.size
        assert sizes[i].tolist() == [width, height]
        middle = (abs(width - height)) / 2
        assert boxes[i].tolist() == pytest.approx([middle, 0, middle + height, height])
        for j, cell in enumerate(cells[i]):
            size = (cell.shape[1], cell.shape[0])
            assert size == (300, round(300 * height / width))
            small = image.resize(size, Image.Resampling.LANCZOS)
            if j == 0:
                assert np.abs(cell - np.asarray(small, dtype=float)).mean() < 4
            else:
                box = tuple(value * 300 / width for value in boxes[i])
                peak = float(maps[i].max())
                expected = overlay(small, maps[i, j - 1], peak=peak, box=box)  # type: ignore[arg-type]
                assert np.abs(cell - np.asarray(expected, dtype=float)).mean() < 3


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    models.models(["l-14"], every=False, as_json=False)
    said = capsys.readouterr().out
    names = [model.name for model in list_models()]
    lines = [line.split() for line in said.splitlines()]
    listed = [words[0] for words in lines if words and words[0] in names]
    assert listed == [name for name in names if "L-14" in name]
    assert "laion2b_s32b_b82k" in said
    assert f"of {len(names)} models" in said
    models.models(["S-32"], every=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {model["name"] for model in found} >= {"ViT-S-32", "ViT-S-32-alt"}
    assert found[0]["patch_size"] == [32, 32]
    with pytest.raises(UsageError, match=r"no model with 'dragon'$"):
        models.models(["dragon"], every=True, as_json=False)
    for word in ("resnet", "RN50", "convnext", "fastvit", "MobileCLIP-S1", "swin", "vitamin-l2"):
        with pytest.raises(UsageError, match=rf"no model with '{word}'; .* has .*supported are"):
            models.models([word], every=False, as_json=False)


def test_models_is_a_command() -> None:
    done = CliRunner().invoke(app, ["models", "bigG", "--json"])
    assert done.exit_code == 0, done.output
    widths = {model["name"]: model["width"] for model in json.loads(done.stdout)}
    assert widths["ViT-bigG-14"] == 1664
    assert widths["PE-Core-bigG-14-448"] == 1536


def test_distinct_texts(scenes: Path) -> None:
    view = ViewOptions(baseline="a photo", distinct=True)
    assert run(scenes, ["boat.png"], maps="distinct.npz", view=view)
    assert run(scenes, ["boat.png"], maps="plain.npz", view=ViewOptions(baseline="a photo"))
    with np.load(scenes / "distinct.npz") as distinct, np.load(scenes / "plain.npz") as plain:
        assert json.loads(str(distinct["about"]))["distinct"] is True
        assert not np.allclose(distinct["maps"][:, :2], plain["maps"][:, :2], rtol=0.05)
        assert distinct["maps"][:, 2] == pytest.approx(plain["maps"][:, 2])
    with pytest.raises(UsageError, match="two texts"):
        draw(
            [str(scenes / "boat.png")], ("a boat",), None, None, ModelOptions("mini").config(), view
        )


def test_classes_of_a_classifier(scenes: Path) -> None:
    classifier_folder(scenes / "net")
    done = legrad("explain", "boat.png", "--classifier", "net", "--save-maps", "m.npz", cwd=scenes)
    assert done.returncode == 0, done.stderr
    with np.load(scenes / "m.npz") as saved:
        assert saved["queries"].tolist() == ["a dog", "n01 a cat", "eel"]
        loaded = load_classifier(str(scenes / "net"), device="cpu")
        pixels = loaded.preprocess(Image.open(scenes / "boat.png"))
        again = LeGrad(loaded).explain(torch.from_numpy(pixels)[None])
        np.testing.assert_allclose(saved["scores"], again.scores.numpy(), atol=1e-5)
        np.testing.assert_allclose(saved["maps"], again.maps.numpy(), rtol=1e-4, atol=1e-9)
    one = legrad("explain", "boat.png", "--classifier", "net", "-q", "eel", cwd=scenes)
    assert one.returncode == 0, one.stderr
    for options, why in (
        (("--classifier", "net", "-q", "owl"), "class 'owl'"),
        (("--classifier", "net", "--baseline", "a photo"), "reads no texts"),
        (("--classifier", "net", "--model", "mini"), "no --model"),
        (("--checkpoint", "w.pth", "-q", "eel"), "--classifier"),
        (("--model", "mini"), "-q TEXT"),
    ):
        failed = legrad("explain", "boat.png", *options, cwd=scenes)
        assert failed.returncode == 2, options
        assert why in failed.stderr
