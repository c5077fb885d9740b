"""A weights file gives the model that its tag gives: activation, normalisation, interpolation."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU

from legrad import load_model
from legrad.models.definition import define
from legrad.models.published import as_published, definition_digest
from tests.legrad.test_definition import write_folder
from tests.legrad.test_weights import random_state

FILE = "w.safetensors"
SMALL = "ViT-S-32-alt"
NAMES = [name for name in open_clip.list_models() if open_clip.list_pretrained_tags_by_model(name)]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_as_its_tag(name: str) -> None:
    """With the tag given always, and without it unless a note says what was assumed."""
    guessed, notes = as_published(define(name), FILE)
    for tag in open_clip.list_pretrained_tags_by_model(name):
        by_tag, quiet = as_published(define(name), tag)
        assert quiet == ()
        assert as_published(define(name), FILE, tag) == (by_tag, ())
        assert notes or guessed == by_tag
        published = open_clip.get_pretrained_cfg(name, tag)
        assert tuple(by_tag.preprocessing["mean"]) == tuple(published["mean"])
        assert tuple(by_tag.preprocessing["std"]) == tuple(published["std"])
        assert by_tag.config["quick_gelu"] or not published.get("quick_gelu")


def test_what_the_tags_agree_on_is_taken() -> None:
    large, notes = as_published(define("ViT-L-14-336"), FILE)
    assert large.config["quick_gelu"]
    assert notes == ()
    siglip, notes = as_published(define("ViT-B-16-SigLIP"), FILE)
    assert siglip.preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert notes == ()


def test_where_the_tags_differ_a_note_names_assumption_tag_and_setting() -> None:
    base, (note,) = as_published(define("ViT-B-16"), FILE)
    assert not base.config["quick_gelu"]
    for word in ("activation", " GELU is assumed", "QuickGELU", "openai", "model.tag", "--tag"):
        assert word in note
    _, notes = as_published(define("ViT-L-14"), FILE)
    assert len(notes) == 2
    assert "laion2b_s32b_b82k" in notes[1]
    laion, notes = as_published(define("ViT-L-14"), FILE, "laion2b_s32b_b82k")
    assert laion.preprocessing["std"] == (0.5, 0.5, 0.5)
    assert notes == ()


def test_tags_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such tag"):
        as_published(define("ViT-B-16"), FILE, "openia")
    with pytest.raises(ValueError, match="describes a weights file"):
        as_published(define("ViT-B-16"), "openai", "openai")
    folder = str(write_folder(tmp_path / "tiny"))
    with pytest.raises(ValueError, match="only names of open_clip have tags"):
        as_published(define(folder), FILE, "openai")


def test_the_loaded_module_has_what_the_tags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: dict[str, dict[str, Any]] = {
        "first": {"quick_gelu": True, "mean": (0.5, 0.4, 0.3), "interpolation": "bicubic"},
        "second": {"quick_gelu": True, "mean": (0.5, 0.4, 0.3), "interpolation": "bilinear"},
    }
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: list(tags))
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: tags[tag])
    path = tmp_path / "w.pt"
    torch.save(random_state(SMALL, 0), path)
    with pytest.warns(UserWarning, match="model.tag"):
        model = load_model(SMALL, str(path), device="cpu")
    assert isinstance(model.tower.blocks[0].activation, QuickGELU)  # type: ignore[attr-defined]
    assert model.mean == (0.5, 0.4, 0.3)
    assert model.preprocess.interpolation == "bicubic"
    second = load_model(SMALL, str(path), device="cpu", tag="second")
    assert second.preprocess.interpolation == "bilinear"
    path.unlink()


def test_runs_of_other_assumptions_are_told_apart(tmp_path: Path) -> None:
    """A name with its tag, or a file with open_clip's defaults, is as in earlier versions."""
    assert definition_digest("ViT-L-14-336", "openai", None) is None
    assert definition_digest("ViT-B-16", FILE, None) is None
    digests = {
        definition_digest("ViT-L-14-336", FILE, None),
        definition_digest("ViT-B-16", FILE, "openai"),
        definition_digest("ViT-B-16", FILE, "laion2b_s34b_b88k"),
        definition_digest(str(write_folder(tmp_path / "tiny")), None, None),
    }
    assert None not in digests
    assert len(digests) == 4


def test_a_json_file_without_preprocessing_is_noted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny")
    assert as_published(define(str(folder)), None)[1] == ()
    config = tmp_path / "bare.json"
    config.write_text('{"embed_dim": 1, "vision_cfg": {}, "text_cfg": {}}')
    (note,) = as_published(define(str(config)), FILE)[1]
    assert "preprocess_cfg" in note
    assert "GELU" in note
    config.write_text('{"embed_dim": 1, "vision_cfg": {}, "text_cfg": {}, "quick_gelu": true}')
    assert " GELU" not in as_published(define(str(config)), FILE)[1][0]
