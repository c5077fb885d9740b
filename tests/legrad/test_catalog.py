"""`list_models`: all that works and nothing else, with the right figures beside it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch.overrides import TorchFunctionMode

from legrad import from_open_clip, list_models
from legrad.models import catalog
from legrad.models.catalog import ListedModel, architecture, needing_transformers
from legrad.towers import (
    ClipTower,
    EvaTower,
    PerceptionTower,
    RelposTower,
    SiglipTower,
    VitTower,
)

FAMILIES = {
    ClipTower: ("CLIP", "CLIPA"),
    SiglipTower: ("SigLIP",),
    PerceptionTower: ("PE-Core",),
    EvaTower: ("EVA",),
    VitTower: ("MobileCLIP", "ViT"),
    RelposTower: ("ViT",),
}

INITIALISERS = frozenset(
    "clamp_ erfinv_ mul_ add_ div_ uniform_ normal_ trunc_normal_ kaiming_uniform_ "
    "xavier_uniform_ zero_ zeros_ ones_ fill_ constant_ copy_".split()
)


class Uninitialised(TorchFunctionMode):
    """Leave new weights as they are: on the meta device they have no values, only their cost."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ in INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def every() -> Iterator[list[ListedModel]]:
    """As if the package transformers were there: towers do not depend on tokenizers."""
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
    for name in (
        "RN50",
        "MobileCLIP-S1",
        "ViTamin-L",
        "swin_base_patch4_window7_224",
        "convnext_base",
    ):
        assert name not in more
    for name in ("coca_ViT-B-32", "EVA01-g-14", "EVA02-B-16", "PE-Core-L-14-336", "MobileCLIP2-B"):
        assert name in names


def test_what_lacks_a_package_is_named_and_not_listed() -> None:
    absent = needing_transformers()
    assert not set(absent) & {model.name for model in list_models(untagged=True)}
    if "nllb-clip-base-siglip" in absent:
        with pytest.raises(ValueError, match="pip install transformers"):
            architecture("nllb-clip-base-siglip")
    assert architecture("ViT-B-16-SigLIP2").family == "SigLIP"  # needs it for texts only


def test_figures_are_those_of_the_built_model(every: list[ListedModel]) -> None:
    """Models with the same parts are built once; an activation has no parameters."""
    assert len(every) > 40
    built: dict[str, ListedModel] = {}
    for listed in every:
        if listed.family in ("mini", "CoCa"):
            continue
        config = open_clip.get_model_config(listed.name)
        parts = json.dumps(config | {"quick_gelu": None}, sort_keys=True)
        if parts in built:
            twin = built[parts]
            assert replace(listed, name=twin.name, tags=twin.tags) == twin
            continue
        built[parts] = listed
        with torch.device("meta"), Uninitialised():
            kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
            model = from_open_clip(kind(**config))
        assert listed.width == model.tower.width, listed.name
        assert listed.layers == len(model.tower.blocks), listed.name
        assert listed.image_size == model.preprocess.size, listed.name
        assert listed.patch_size == model.tower.patch_size, listed.name
        count = sum(p.numel() for p in model.model.parameters())
        assert listed.parameters == count, listed.name
        assert listed.family in FAMILIES[type(model.tower)], listed.name
        if listed.family in ("CLIP", "CLIPA"):
            average = model.tower.visual.pool_type == "avg"
            assert listed.family == ("CLIPA" if average else "CLIP"), listed.name


def test_the_mini_model_is_counted() -> None:
    mini = list_models()[0]
    from legrad import load_model

    assert mini.parameters == sum(p.numel() for p in load_model("mini").model.parameters())
