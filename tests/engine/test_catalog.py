"""`list_models`: all that works and nothing else, with the right figures beside it."""

import json
from collections.abc import Iterator
from typing import Any

import open_clip
import pytest
import torch

from legrad import catalog, from_open_clip, list_models
from legrad.catalog import ListedModel, architecture, needing_transformers
from tests.builders import TINY_TEXT, images, randomise, unit_directions
from tests.engine.compare import relative_error
from tests.engine.test_against_oracle import explain
from tests.oracle import oracle_maps

SMALL = {"width": 48, "head_width": 12, "layers": 2, "patch_size": 8, "image_size": 32}


@pytest.fixture(scope="module")
def every() -> Iterator[list[ListedModel]]:
    """As if the package transformers were there: its tokenizers are no matter of the towers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_lacking", lambda text: text.get("hf_model_name"))
        yield list_models(untagged=True)


def test_without_arguments_all_have_weights() -> None:
    listed = list_models()
    names = [model.name for model in listed]
    assert names[0] == "mini"
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14"} <= set(names)
    assert len(set(names)) == len(names)
    for model in listed[1:]:
        assert model.tags == tuple(open_clip.list_pretrained_tags_by_model(model.name))
        assert model.tags
    more = [model.name for model in list_models(untagged=True)]
    assert {"ViT-S-32-alt", "ViT-M-16"} <= set(more) - set(names)
    for name in ("RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16", "convnext_base"):
        assert name not in more


def test_what_lacks_a_package_is_named_and_not_listed() -> None:
    absent = needing_transformers()
    assert not set(absent) & {model.name for model in list_models(untagged=True)}
    if "ViT-L-14-CLIPA" in absent:
        with pytest.raises(ValueError, match="tokenizer of the package transformers: pip install"):
            architecture("ViT-L-14-CLIPA")


def test_figures_are_those_of_the_built_model(every: list[ListedModel]) -> None:
    assert len(every) > 40
    for listed in every:
        if listed.family in ("mini", "CoCa"):
            continue
        config = open_clip.get_model_config(listed.name)
        with torch.device("meta"):
            kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
            model = from_open_clip(kind(**config))
        assert listed.width == model.tower.projection.shape[0], listed.name
        assert listed.layers == len(model.tower.blocks), listed.name
        assert listed.image_size == model.preprocess.size, listed.name
        assert listed.patch_size == model.tower.patch_size, listed.name
        count = sum(p.numel() for p in model.model.parameters())
        assert listed.parameters == count, listed.name
        average = model.tower.visual.pool_type == "avg"
        assert listed.family == ("CLIPA" if average else "CLIP"), listed.name


def test_every_listed_kind_of_tower_agrees_with_the_oracle(every: list[ListedModel]) -> None:
    """All settings of each architecture, at a size that autograd in float64 can follow."""
    kinds: dict[str, tuple[dict[str, Any], bool]] = {}
    for listed in every:
        config = catalog._config(listed.name)
        vision = config["vision_cfg"] | SMALL | {"output_tokens": False}
        quick = bool(config.get("quick_gelu", False))
        kinds[json.dumps([vision, quick], sort_keys=True)] = (vision, quick)
    assert len(kinds) >= 5
    for vision, quick in kinds.values():
        clip = open_clip.CLIP(32, vision, dict(TINY_TEXT), quick_gelu=quick)
        model = randomise(clip, 0).double().eval()
        pixels, directions = images(1, 2), unit_directions(2, 3)
        seen = explain(model, pixels, directions, layers=2)
        expected, scores, _ = oracle_maps(model, pixels, directions, 2)
        assert relative_error(seen.maps, expected) < 1e-6, vision
        torch.testing.assert_close(seen.scores, scores)


def test_the_mini_model_is_counted() -> None:
    mini = list_models()[0]
    from legrad import load_model

    assert mini.parameters == sum(p.numel() for p in load_model("mini").model.parameters())
